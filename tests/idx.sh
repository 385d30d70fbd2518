# idx.sh: small idx files, for tests that train on images; to be sourced.

# idx FOLDER PART COUNT COUNT_BYTES: so many images of 12 x 12 pixels and as many labels, all cut from the digits of the counting numbers.
idx() {
    mkdir -p "$1"
    { printf '%b' "\0\0\010\003\0\0$4\0\0\0\014\0\0\0\014"; seq 100000 | head -c $(($3 * 144)); } \
        >"$1/$2-images-idx3-ubyte"
    { printf '%b' "\0\0\010\001\0\0$4"; seq 1000 | tr -d '\n' | tr 0-9 '\000-\011' | head -c "$3"; } \
        >"$1/$2-labels-idx1-ubyte"
}

# digits FOLDER: 256 images to train on, 64 to test on.
digits() {
    idx "$1" train 256 '\001\000'
    idx "$1" t10k 64 '\000\100'
}
