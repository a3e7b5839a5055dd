#!/bin/sh
# Installs finetui @VERSION@ from the wheels beside this file, without a network: sh install.sh [DIR]
# DIR is where its virtual environment is made (./finetui-venv by default). PYTHON=/path/to/python chooses another one.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${1:-finetui-venv}

fail() {
    printf 'finetui was not installed: %s\n  fix: %s\n' "$1" "$2" >&2
    exit 2
}

python=
for each in "${PYTHON:-}" python@PYTHON@ python3 python; do
    if [ -n "$each" ] && "$each" -I -c '
import ensurepip, sys, venv
sys.exit("%d.%d" % sys.version_info[:2] != "@PYTHON@")' 2>/dev/null; then
        python=$each
        break
    fi
done
[ -n "$python" ] || fail 'these wheels are for Python @PYTHON@, and none with its venv module was found' \
    'Install it (Debian, Ubuntu: python@PYTHON@-venv), or say where it is: PYTHON=/path/to/python sh install.sh'

"$python" -I - "$here" <<'CHECK' || fail 'the folder is not whole' 'Copy it again from where it was made.'
import hashlib, os, sys
folder = sys.argv[1]
wrong = []
listed = set()
with open(os.path.join(folder, "SHA256SUMS"), encoding="ascii") as sums:
    for line in sums:
        wanted, _, name = line.rstrip("\n").partition("  ")
        listed.add(name)
        digest = hashlib.sha256()
        try:
            with open(os.path.join(folder, name), "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            wrong.append(f"{name}: {error.strerror}")
            continue
        if digest.hexdigest() != wanted:
            wrong.append(f"{name}: damaged, its sum is another")
wheels = os.listdir(os.path.join(folder, "wheels"))
wrong += [f"wheels/{name}: was not packed with the others" for name in wheels if f"wheels/{name}" not in listed]
print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
sys.exit(bool(wrong))
CHECK
printf 'All files are whole.\n'

if [ -e "$target" ] && [ -n "$(ls -A "$target" 2>/dev/null || echo a file)" ]; then
    fail "$target is there already" 'Give another DIR, or remove that one.'
fi
made=$target
# What was made in part would look like an installation.
trap 'status=$?; [ "$status" -eq 0 ] || [ -z "$made" ] || rm -rf "$made"' EXIT
trap 'exit 130' INT TERM HUP
"$python" -I -m venv "$target"
# --isolated and no configuration file: nothing but this folder is looked at.
if ! PIP_CONFIG_FILE=/dev/null "$target/bin/python" -I -m pip --isolated --disable-pip-version-check install \
    --no-index --no-cache-dir --find-links "$here/wheels" --constraint "$here/constraints.txt" 'finetui==@VERSION@' \
    >"$target/install.log" 2>&1; then
    tail -n 15 "$target/install.log" >&2
    fail 'pip could not install it from these wheels' 'pip says above what is missing; pack the bundle again.'
fi
mkdir -p "$target/share/finetui"
cp "$here/constraints.txt" "$target/share/finetui/constraints.txt"
made=
printf 'Installed: '
"$target/bin/finetui" --version
printf 'Next: %s/bin/finetui doctor --offline MODEL\n' "$target"
