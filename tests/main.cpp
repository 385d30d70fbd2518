/* Runs a test program, and fails it where fewer tests ran than GS_TEST_MINIMUM asks for: nothing passes by not running. */
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    int failed = RUN_ALL_TESTS();
    const testing::UnitTest *unit = testing::UnitTest::GetInstance();
    const char *text = std::getenv("GS_TEST_MINIMUM");
    int minimum = text && testing::GTEST_FLAG(filter) == "*" ? std::atoi(text) : 0;
    int ran = unit->successful_test_count() + unit->failed_test_count();
    if (ran < minimum) {
        std::printf("only %d tests ran, at least %d must\n", ran, minimum);
        return 1;
    }
    return failed;
}
