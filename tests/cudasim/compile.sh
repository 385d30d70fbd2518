#!/bin/bash
# Compiles one .cu file with g++: "compile.sh g++ <options> -o file.o -c file.cu", as CMake's compiler launcher does.
#
# C++ has no storage class that does what __shared__ does, so the preprocessed text is edited before it is compiled
# (CUDASIM_SHARED is what the macro __shared__ leaves there):
#     extern __shared__ T name[];    becomes a pointer to the block's dynamic shared memory,
#     __shared__ T name[n];          a reference into memory of the block that holds this one variable.
# One variable a declaration; another form of declaration is left alone and does not compile.
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
type='([^;{}]*[^;{}A-Za-z0-9_])' name='([A-Za-z_][A-Za-z_0-9]*)'
pointer='\1*const \2 = cudasim::DynamicShared();'
reference='struct cudasim_shared_\2 {\1\2\3; }; auto \&\2 = cudasim::sharedVariable<cudasim_shared_\2>().\2;'
sed -E -z -i -e "s/\\bextern\s+CUDASIM_SHARED\b$type$name\s*\[\s*\]\s*;/$pointer/g" \
    -e "s/\\bCUDASIM_SHARED\b$type$name((\s*\[[^];]*\])*)\s*;/$reference/g" "$preprocessed"
"$compiler" "${both[@]}" -x c++-cpp-output -c "$preprocessed" -o "$object"
