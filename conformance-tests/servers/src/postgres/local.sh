# Runs one PostgreSQL server. $1: the directory of its programs; $2: the directory in which to make
# one for the server.
programs=$1
umask 077
directory=$(mktemp -d "$2/annals-XXXXXX" 2>&1) || {
    echo "failed $directory"
    exit 1
}

# A server that inherited this shell's pipes would keep them open, and their readers waiting.
run() {
    program=$1
    shift
    "$programs/$program" -D "$directory/data" "$@" </dev/null >>"$directory/log" 2>&1
}

end() {
    run pg_ctl -m immediate -w stop
    rm -rf "$directory"
}
trap end EXIT
trap 'exit 1' HUP INT TERM
# The process that reads the answers may have ended.
trap '' PIPE

echo "ok $directory"
while read -r order; do
    case $order in
    create) run initdb --no-sync -A trust -E UTF8 --locale=C -U postgres ;;
    start) run pg_ctl -l "$directory/log" -w start ;;
    stop) run pg_ctl -m immediate -w stop ;;
    *) false ;;
    esac && echo ok || echo "failed $order"
done
