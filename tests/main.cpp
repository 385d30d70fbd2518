/* Runs a test program. Nothing passes by not running: fewer tests than GS_TEST_MINIMUM asks for are a failure, and a program whose
 * tests were all skipped exits with 77, which CTest shows as skipped. */
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
    if (ran == 0 && unit->skipped_test_count() > 0)
        return 77;
    if (ran < minimum) {
        std::printf("only %d tests ran, at least %d must\n", ran, minimum);
        return 1;
    }
    return failed;
}
