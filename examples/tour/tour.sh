#!/bin/sh
# A tour of the command: what it does and what it prints, in a scratch directory.
#
#     make demo, or: PATH="$PWD/build/bin:$PATH" examples/tour/tour.sh [DIRECTORY]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-$(mktemp -d)}
mkdir -p "$work"
cd "$work"
rm -rf app site.yaml templates
cp -R "$here/site.yaml" "$here/templates" .

say() { printf '\n# %s\n' "$*"; }
run() {
    printf '$ atomicwriter'
    for word; do
        case $word in *[!-_./=,:A-Za-z0-9]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
    status=0
    atomicwriter "$@" 2>&1 || status=$?
    test $status = 0 || printf '(exit status %s)\n' $status
}
write() {
    run "$@" --template templates --data site=site.yaml --set 'greeting=say "hello"' \
        --label app=podinfo --label tier=front --file-mode run.sh=0755
}

say "Two templates, YAML data and labels become one version."
write write app --create
run ls -l app
run cat app app.conf run.sh

say "Nothing has changed: nothing is touched, and nothing would be reloaded."
write write app --reload 'echo reloading'

say "What would a change do?"
sed -i 's/8443/9443/; /bob/d' site.yaml
write diff app

say "The check sees the complete new version before anybody else; it refuses this one."
write write app --check 'sh -n {}/run.sh && ! grep -q 9443 {}/app.conf'

say "This reload fails, so the previous version comes back, and is reloaded."
write write app --reload 'grep -q 8443 app/app.conf && echo reloaded'

say "Now both agree."
write write app --check 'sh -n {}/run.sh' --reload 'echo reloaded $ATOMICWRITER_VERSION'
run status app

say "On second thoughts…"
run rollback app
run cat app app.conf
