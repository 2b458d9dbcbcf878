#!/bin/sh
# Graphviz draws the pictures. Install it where it is missing and may be installed; go on without it otherwise.
command -v dot >/dev/null 2>&1 && exit 0
if command -v apt-get >/dev/null 2>&1; then
    sudo=""
    [ "$(id -u)" -eq 0 ] || sudo="sudo -n"
    $sudo apt-get update -qq >/dev/null 2>&1 && $sudo apt-get install -y -qq graphviz >/dev/null 2>&1
elif command -v brew >/dev/null 2>&1; then
    brew install -q graphviz
fi
command -v dot >/dev/null 2>&1 || echo "Graphviz is missing: pictures can be written as .dot only (see graphviz.org)"
