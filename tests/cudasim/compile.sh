#!/bin/bash
# Compiles one .cu file with g++: "compile.sh g++ <options> -o file.o -c file.cu", as CMake's compiler launcher does.
#
# `__shared__` is the macro `static`, which cannot stand after `extern`; so the preprocessed text is edited before it is
# compiled: `extern __shared__ T name[];` becomes a pointer to the block's dynamic shared memory.
set -e
compiler=$1
shift
both=() only_preprocess=() source= object=
while (($#)); do
    case $1 in
    -c) source=$2 && shift ;;
    -o) object=$2 && shift ;;
    -x) shift ;;
    -MF | -MT | -MQ | -include | -isystem | -iquote | -I | -D | -U) only_preprocess+=("$1" "$2") && shift ;;
    -MD | -MMD | -I* | -D* | -U*) only_preprocess+=("$1") ;;
    *) both+=("$1") ;;
    esac
    shift
done

preprocessed=$object.ii
trap 'rm -f "$preprocessed"' EXIT
"$compiler" "${both[@]}" "${only_preprocess[@]}" -x c++ -E "$source" -o "$preprocessed"
# Over line ends too: g++ puts line markers around what comes from a macro of a system header, such as __align__.
declaration='\bextern\s+static\b(\s+__thread\b)?([^;=]*[^;=A-Za-z0-9_])([A-Za-z_][A-Za-z_0-9]*)\s*\[\s*\]\s*;'
sed -E -z -i "s/$declaration/\2*const \3 = cudasim::DynamicShared();/g" "$preprocessed"
"$compiler" "${both[@]}" -x c++-cpp-output -c "$preprocessed" -o "$object"
