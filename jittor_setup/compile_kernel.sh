# Compiles one kernel of Jittor with a precompiled header. compiler.py writes this file into
# Jittor's cache folder, after lines that set
#
#   python     the interpreter, for everything that is not done here
#   header     the precompiled header
#   rewrites   true if Jittor's asm_tuner.py works with this compiler, else false
#   options    further options of the compiler
#
# Jittor calls  python .../asm_tuner.py --cc_path=g++ KERNEL_op.cc FLAGS -o KERNEL_op.so
# for each kernel, with this script for `python`.

case "$1" in
*/asm_tuner.py) ;;
*) exec "$python" "$@" ;;
esac
compiler=${2#--cc_path=}
kernel=${3%.cc}

# Another process may be compiling the same kernel (`compile_without_lock`): wait for it.
exec 9> "$kernel.lock"
if command -v flock > /dev/null && ! flock -n 9; then
    flock 9
    [ "$kernel.so" -nt "$3" ] && exit
fi

# asm_tuner.py obeys marks in a kernel, "@begin ...", by rewriting its assembly. It does not
# find the marks in the assembly of g++ 11 and newer, so nothing is lost without it there.
if $rewrites && grep -q @begin "$3"; then
    "$python" "$@" -include "$header" || "$python" "$@"
else
    # The library is renamed when it is complete, since other processes may look for it.
    (shift 2; exec "$compiler" "$@" -include "$header" $options -o "$kernel.$$") &&
        mv "$kernel.$$" "$kernel.so" ||
        "$python" "$@"
fi
result=$?
rm -f "$kernel.s" "$kernel.post.s" "$kernel.$$" "$kernel.lock"
exit $result
