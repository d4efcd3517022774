"""The command that prints what a shell needs to complete command lines, made from the parser.

Commands, options and choices stand in the script.  Labels of queues and types are asked of the
program when they are wanted; ids are not: to list them would be slow.
"""

import os
import re
import shlex

from .. import Queue
from ..errors import BadArgument
from .output import PROGRAM, Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Action, ArgumentParser, Namespace
    from collections.abc import Callable, Iterator

SHELLS = ("bash", "zsh", "fish")
WORDS = ("queues", "types")
LARGEST = 64 << 20  # bytes of a queue file that is read while somebody waits at a prompt
_SAFE = re.compile(r"[A-Za-z0-9_.:-]{1,100}", re.ASCII)  # a shell does not act on these

_POSIX = """\
# What may follow these words, the program first: a line for each; @files stands for file names.
_dbbasic_queue_words() {{
    local program=$1 command='' file='' prev='' word
    shift
    for word in "$@"; do
        case $word in
            -*) ;;
            *)
                if [ "$prev" = --file ]; then
                    file=$word
                elif [ "$command" = '' ]; then
                    command=$word
                elif [ "$command" = schedule ]; then
                    command="schedule $word"
                fi
                ;;
        esac
        prev=$word
    done
    case "$command $prev" in
{values}
    esac
    case $command in
{commands}
    esac
}}
"""
_BASH = """\
# Completion for bash: source <({program} completion bash)
{words}
_dbbasic_queue() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} IFS=$'\\n' found
    found=$(_dbbasic_queue_words "${{COMP_WORDS[@]:0:COMP_CWORD}}")
    if [ "$found" = @files ]; then
        COMPREPLY=($(compgen -f -- "$cur"))
        compopt -o filenames 2>/dev/null
    else
        COMPREPLY=($(compgen -W "$found" -- "$cur"))
    fi
}}
complete -F _dbbasic_queue {program}
"""
_ZSH = """\
#compdef {program}
# Completion for zsh: source <({program} completion zsh), or a file _{program} in $fpath
{words}
_dbbasic_queue() {{
    local -a found
    found=("${{(@f)$(_dbbasic_queue_words "${{(@)words[1,CURRENT-1]}}")}}")
    if [[ $found[1] == @files ]]; then
        _files
    elif [[ -n $found[1] ]]; then
        compadd -- "${{found[@]}}"
    fi
}}
if (( $+functions[compdef] )); then
    compdef _dbbasic_queue {program}
fi
"""
_FISH = """\
# Completion for fish: {program} completion fish | source
function __dbbasic_queue_words
    {program} completion --words $argv[1] 2>/dev/null
end
complete -c {program} -f
{lines}
"""


def completion(queue: Queue, given: "Namespace", out: Output) -> int:
    """Print a script for a shell, or the words that such a script asks for."""
    if (given.shell is None) == (given.words is None):
        raise BadArgument("give a shell: bash, zsh or fish")
    if given.words:
        words = _known(queue, given.words)
        if out.json:
            out.document(words)
        for word in () if out.json else words:
            out.line(word)
        return 0 if words else 1
    text = script(given.shell, given.parser())
    if out.json:
        out.document({"shell": given.shell, "script": text})
    else:
        for line in text.splitlines():
            out.line(line)
    return 0


def script(shell: str, parser: "ArgumentParser") -> str:
    """Return the script for a shell, with what this parser takes."""
    if shell == "fish":
        lines = "\n".join(_fish_lines(parser))
        return _FISH.format(program=PROGRAM, lines=lines)
    words = _POSIX.format(values=_values(parser), commands=_commands(parser))
    return (_BASH if shell == "bash" else _ZSH).format(program=PROGRAM, words=words)


def _known(queue: Queue, what: str) -> list[str]:
    """Return the labels or the types of a file, those that no shell could misunderstand."""
    try:
        if os.stat(queue.path).st_size > LARGEST:
            return []
    except OSError:
        return []
    found = queue.counts(what[:-1])
    return sorted(word for word in found if _SAFE.fullmatch(word))


# --- what the parser takes


def every(parser: "ArgumentParser") -> "Iterator[tuple[str, ArgumentParser]]":
    """Yield the words of each command, and its parser; "" is the program's."""
    yield "", parser
    for name, _, one in _inner(parser):
        yield name, one
        for word, _, inner in _inner(one):
            yield f"{name} {word}", inner


def _inner(parser: "ArgumentParser") -> "list[tuple[str, str, ArgumentParser]]":
    for action in parser._actions:
        if isinstance(action.choices, dict):
            docs = {one.dest: one.help or "" for one in getattr(action, "_choices_actions", ())}
            return [(name, docs.get(name, ""), one) for name, one in action.choices.items()]
    return []


def _kind(action: "Action") -> str:
    """Return what a value may be: words, @files, @queues, @types, or "" for anything."""
    if action.choices and not isinstance(action.choices, dict):
        return " ".join(map(str, action.choices))
    if action.dest in ("queue", "label"):
        return "@queues"
    if action.dest == "type":
        return "@types"
    return "@files" if action.metavar in ("PATH", "FILE", "TARGET") else ""


def _options(parser: "ArgumentParser") -> "list[Action]":
    return [action for action in parser._actions if action.option_strings]


def _print(kind: str) -> str:
    """Return the shell's words that print what a kind stands for."""
    if kind in ("@queues", "@types"):
        asked = f'"$program" completion --words {kind[1:]} 2>/dev/null'
        return f'DBBASIC_QUEUE="${{file:-${{DBBASIC_QUEUE-}}}}" {asked}'
    words = kind.split()
    return f"printf '%s\\n' {' '.join(map(shlex.quote, words))}" if words else ":"


def _values(parser: "ArgumentParser") -> str:
    lines = []
    for name, one in every(parser):
        for action in _options(one):
            if action.nargs != 0:
                words = "|".join(f'"{name} {option}"' for option in action.option_strings)
                lines.append(f"        {words}) {_print(_kind(action))}; return ;;")
    return "\n".join(lines)


def _commands(parser: "ArgumentParser") -> str:
    lines = []
    for name, one in every(parser):
        words = [option for action in _options(one) for option in action.option_strings]
        words += [word for word, _, _ in _inner(one)]
        more = ""
        for action in one._actions:
            kind = "" if action.option_strings else _kind(action)
            if kind == "@files":
                more = "; compgen -f 2>/dev/null"
            elif kind.startswith("@"):
                more = f"; {_print(kind)}"
            else:
                words += kind.split()
        lines.append(f"        {shlex.quote(name)}) {_print(' '.join(words))}{more} ;;")
    return "\n".join(lines)


def _fish_lines(parser: "ArgumentParser") -> "Iterator[str]":
    top = [name for name, _, _ in _inner(parser)]
    for name, one in every(parser):
        first, _, second = name.partition(" ")
        where = f"__fish_seen_subcommand_from {first}"
        if second:
            where += f"; and __fish_seen_subcommand_from {second}"
        elif first and first != "schedule" and first in _of(parser, "schedule"):
            where += "; and not __fish_seen_subcommand_from schedule"
        where = where if name else "not __fish_seen_subcommand_from " + " ".join(top)
        begin = f"complete -c {PROGRAM} -n {_fish(where)}"
        for word, its_doc, _ in _inner(one):
            yield f"{begin} -a {word} -d {_fish(its_doc)}"
        for action in one._actions:
            kind = _kind(action)
            values = (
                f"(__dbbasic_queue_words {kind[1:]})" if kind in ("@queues", "@types") else kind
            )
            offers = " -r -F" if kind == "@files" else f" -a {_fish(values)}" if values else ""
            if action.option_strings:
                names = "".join(
                    f" -l {option[2:]}" if option.startswith("--") else f" -s {option[1:]}"
                    for option in action.option_strings
                )
                takes = "" if action.nargs == 0 or kind == "@files" else " -x"
                yield f"{begin}{names}{takes}{offers} -d {_fish(action.help or '')}"
            elif offers:
                yield f"{begin}{offers.replace(' -r', '')}"


def _of(parser: "ArgumentParser", name: str) -> set[str]:
    return {word for one, _, inner in _inner(parser) if one == name for word, _, _ in _inner(inner)}


def _fish(text: str) -> str:
    quoted = " ".join(text.replace("%%", "%").split()).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"


def add_words(add: "Callable[..., ArgumentParser]", parser: "Callable[[], ArgumentParser]") -> None:
    """Add the words of this command; `parser` makes the parser of the whole command line."""
    p = add(
        "completion", completion, "Print a script that lets a shell complete command lines.",
        """completion bash > ~/.local/share/bash-completion/completions/dbbasic-queue
           completion zsh > ~/.zsh/functions/_dbbasic-queue
           completion fish > ~/.config/fish/completions/dbbasic-queue.fish""",
        "For this shell alone: source <(dbbasic-queue completion bash).  Commands, options and\n"
        "their choices are completed, labels of queues, types and file names too; ids are not.",
    )  # fmt: skip
    p.set_defaults(parser=parser)
    p.add_argument("shell", nargs="?", choices=SHELLS, help="bash, zsh or fish")
    asked = "print what the queue has of these; the scripts ask so"
    p.add_argument("--words", choices=WORDS, help=asked)
