"""Completion in bash, zsh and fish: click's, but a setting may go on after a `.` or a `=`, with no space between.

bash takes a word apart at `=` and `:`, so the whole line is read instead, and only the last piece is answered.
"""

import os
from typing import Any

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

OPEN = "open"  # the type of what is completed, but goes on: no space may follow
LONGEST_HELP = 60

BASH = """\
%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            open) compopt -o nospace; COMPREPLY+=("$value") ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(env COMP_WORDS="${COMP_LINE:0:$COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a plain open response
    (( ! $+commands[%(prog_name)s] )) && return 1
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete %(prog_name)s)}")

    for type key descr in ${response}; do
        case $type in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            open) open+=("$key:$descr") ;;
            plain) plain+=("$key:$descr") ;;
        esac
    done
    (( $#open )) && _describe -V unsorted open -U -S ''
    (( $#plain )) && _describe -V unsorted plain -U
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

FISH = """\
function %(complete_func)s
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \\
        COMP_CWORD=(commandline -t) %(prog_name)s)
    for completion in $response
        set -l found (string split -m 1 "," $completion)
        switch $found[1]
            case dir
                __fish_complete_directories $found[2]
            case file
                __fish_complete_path $found[2]
            case '*'
                echo $found[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class Words(ShellComplete):
    """What every shell has in common: parameters find the words of the command line so far in `ctx.obj`."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """What may stand at the cursor."""
        self.ctx_args = {**self.ctx_args, "obj": args}
        return super().get_completions(args, incomplete)


class Bash(Words, BashComplete):
    """bash, which is told of a word only what stands behind its last `=` or `:`."""

    source_template = BASH
    begun = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor, and the one that is being written."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        self.begun = "" if line[-1:].isspace() or not words else words.pop()
        return words, self.begun

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Type and value, without what bash takes for an earlier word."""
        breaks = os.environ.get("COMP_BREAKS", "=:")
        option, equals, rest = self.begun.partition("=")
        begun = rest if equals and option.startswith("--") else self.begun
        kept = max((begun.rfind(c) + 1 for c in "=:" if c in breaks), default=0)
        value = item.value[kept:] if item.value.startswith(begun[:kept]) else item.value
        return f"{item.type},{value}"


class Zsh(Words, ZshComplete):
    """zsh, with the meaning of what goes on too."""

    source_template = ZSH

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Three lines: type, value and meaning, between which a `:` will stand."""
        return f"{item.type}\n{item.value.replace(':', chr(92) + ':')}\n{_short(item.help)}"


class Fish(Words, FishComplete):
    """fish, which leaves out the space behind a `.` or `=` by itself."""

    source_template = FISH

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Type, value and meaning."""
        return f"{item.type},{item.value}" + (f"\t{_short(item.help)}" if item.help else "")


def _short(text: str | None) -> str:
    """A meaning in few words on one line."""
    said = " ".join((text or "").split())
    return said if len(said) <= LONGEST_HELP else f"{said[: LONGEST_HELP - 3]}..."


def register() -> None:
    """Make click use these."""
    for name, cls in (("bash", Bash), ("zsh", Zsh), ("fish", Fish)):
        add_completion_class(cls, name)
