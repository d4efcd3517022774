"""What a disk may hold after a power cut, by two models, at any point of a recorded log.

"posix" is the strictest: only what was synced is sure.  Of each file's later calls any prefix may
have arrived, all but one, one alone, zeros in the place of data, a torn write; of each folder's
later names each by itself is old or new, even the two of one rename.

"ext4" is what its ordered mode forgives: names and sizes arrive in the order in which they were
made, a sync takes all earlier names with it, and a rename over a file waits for the new data.  Data
of one file arrive in order, except for those in room that was there before.
"""

import itertools
import math

from .disk import Content, File, Folder, Tree, after

SECTOR, PAGE = 512, 4096
EDGES = 3  # of a long write: so many places at each end where it is torn


def posix(disk, many, chance, minor=frozenset()):
    """Yield the trees that may be there after a cut now.

    The oldest and the newest come first.  Then all of them where they are not more than `many`;
    else each single thing older or newer than these, all that was done up to a moment, and as many
    by chance.  Of one file not more than `many` contents are taken.  Files with a name in `minor`,
    on which nothing depends, are all old or all new.
    """
    important, rest = {}, {}
    for folder, name, found in all_names(disk.root):
        (rest if name in minor else important)[folder, name] = found
        for thing in dict.fromkeys(thing for _, thing in found if isinstance(thing, File)):
            (rest if name in minor else important)[thing] = None
    for things in (important, rest):
        for thing in [thing for thing in things if isinstance(thing, File)]:
            things[thing] = thinned(strict_contents(thing), many, chance)
    oldest = {key: found[0][1] for key, found in (important | rest).items()}
    newest = {key: found[-1][1] for key, found in rest.items()}
    names = {folder: list(folder.options()) for folder, _, _ in all_names(disk.root)}
    for chosen in choices(important, many, chance):
        yield chosen_tree(disk.root, names, oldest | newest | chosen)
        yield chosen_tree(disk.root, names, oldest | chosen)
    last = {key: found[-1][1] for key, found in important.items()}
    for key, found in rest.items():
        for _, value in found[1:-1]:
            yield chosen_tree(disk.root, names, oldest | last | newest | {key: value})


def all_names(root):
    """Yield (folder, name, options) of all folders that a name may lead to."""
    waiting, seen = [root], {root}
    while waiting:
        folder = waiting.pop()
        for name, found in folder.options().items():
            yield folder, name, found
            inner = {thing for _, thing in found if isinstance(thing, Folder)} - seen
            waiting += sorted(inner, key=lambda one: one.inode)
            seen |= inner


def chosen_tree(root, names, chosen):
    return Tree(
        root,
        lambda folder: {name: chosen[folder, name] for name in names.get(folder, ())},
        chosen.__getitem__,
    )


def strict_contents(file):
    """Return (number, content) of a file's possible contents, from the oldest to the newest.

    The number tells up to which call in the log all has arrived, None where that is not so.
    """
    calls, found = file.calls, [(0, file.base)]
    for at, call in enumerate(calls):
        before = after(file.base, calls[:at])
        size = len(call.data)
        found += [(None, part(before, call, *kept)) for kept in torn(call, SECTOR)]
        if size:
            found += [(None, part(before, call, 0, 0)), (None, part(file.base, call, 0, size))]
        if at + 1 < len(calls):
            found.append((None, after(file.base, calls[:at] + calls[at + 1 :])))
            found.append((call.number, after(before, [call])))
    if calls:
        nothing = bytearray(file.base.data)
        for call in calls:
            call.on(nothing, 0, 0)
        found += [(None, Content(bytes(nothing), calls[-1].mtime)), (calls[-1].number, file.now)]
    return unlike(found)


def unlike(found):
    """Leave out contents that are there already; the oldest and the newest keep their places."""
    first, last = found[0], found[-1]
    kept = {one.key: (number, one) for number, one in reversed(found) if number is None}
    kept |= {one.key: (number, one) for number, one in reversed(found) if number is not None}
    for _, one in (first, last):
        kept.pop(one.key, None)
    middle = sorted(kept.values(), key=lambda one: (one[0] or 0, one[1].key))
    return [first, *middle, last] if middle or first[1].key != last[1].key else [first]


def thinned(found, many, chance):
    """Leave out some options of a factor by chance, but not the oldest and the newest."""
    if len(found) <= max(2, many):
        return found
    middle = sorted(chance.sample(range(1, len(found) - 1), max(0, many - 2)))
    return [found[0], *(found[at] for at in middle), found[-1]]


def torn(call, size):
    """Return (first, last, cut) of the parts of a write that may arrive without the rest.

    With `cut` the file ends there; else it has its full size.
    """
    end = call.at + len(call.data)
    borders = [at - call.at for at in range(call.at - call.at % size + size, end, size)]
    if len(borders) > 2 * EDGES:
        borders = borders[:EDGES] + borders[-EDGES:]
    parts = [part for border in borders for part in ((0, border, True), (0, border, False))]
    return parts + [(border, len(call.data), False) for border in borders]


def part(content, call, first, last, cut=False):
    """Return a content after a part of a write."""
    data = bytearray(content.data)
    size = max(len(data), call.at + last)
    call.on(data, first, last)
    return Content(bytes(data[:size] if cut else data), call.mtime)


def choices(factors, many, chance):
    """Yield {key: value}: all combinations of the factors' options, or many of them.

    A factor is a list of (number, value); see `posix`.
    """
    oldest = {key: found[0][1] for key, found in factors.items()}
    newest = {key: found[-1][1] for key, found in factors.items()}
    yield oldest
    yield newest
    if math.prod(map(len, factors.values())) <= many:
        for values in itertools.product(*factors.values()):
            yield dict(zip(factors, (value for _, value in values), strict=True))
        return
    for key, found in factors.items():
        for _, value in found:
            yield oldest | {key: value}
            yield newest | {key: value}
    moments = {number for found in factors.values() for number, _ in found if number}
    for moment in sorted(moments):
        yield {key: as_of(moment, found) for key, found in factors.items()}
    for _ in range(many):
        yield {key: chance.choice(found)[1] for key, found in factors.items()}


def as_of(moment, found):
    """Return the last option of a factor in which nothing is newer than a moment."""
    values = [value for number, value in found if number is not None and number <= moment]
    return values[-1] if values else found[0][1]


# --- what ext4 forgives


def ext4(disk, many, chance, minor=frozenset()):
    """Yield the trees that may be there after a cut now; see `posix`."""
    later = [number for number in disk.at_once if number > disk.committed]
    for moment in dict.fromkeys((disk.committed, *later)):
        yield from as_of_names(disk.root, moment, many, chance, minor)


def as_of_names(root, moment, many, chance, minor):
    """Yield the trees in which the names are as of a moment in the log."""
    important, newest = {}, {}
    for path, (file, content) in Tree(root, names_until(moment), lambda f: f.now).files.items():
        if path.rpartition("/")[2] in minor:
            newest[file] = content
        else:
            important[file] = thinned(forgiving_contents(file, moment), many, chance)
    for chosen in choices(important, many, chance):
        yield Tree(root, names_until(moment), (newest | chosen).__getitem__)


def names_until(moment):
    return lambda folder: folder.names(moment)


def forgiving_contents(file, moment):
    """Return (number, content) of a file's contents when sizes are as of a moment in the log."""
    count = max((count for number, count in file.flushed if number <= moment), default=0)
    found = []
    for arrived in range(count, len(file.calls) + 1):
        calls = [
            call
            for at, call in enumerate(file.calls)
            if (call.number <= moment if call.what != "write" else at < arrived)
        ]
        whole = after(file.base, calls)
        if calls and calls[-1].what == "write" and arrived > count:
            before = after(file.base, calls[:-1])
            cuts = [kept for kept in torn(calls[-1], PAGE) if kept[2]]
            found += [(None, part(before, calls[-1], *kept)) for kept in cuts]
        found.append((file.calls[arrived - 1].number if arrived else 0, whole))
    return unlike(found[:-1] + [(None, one) for one in late_pages(file, moment)] + found[-1:])


def late_pages(file, moment):
    """Yield a file's contents without one page of it, of those that were there before the data.

    What is written into room that was reserved does not wait for anything.
    """
    old = after(file.base, [c for c in file.calls if c.what != "write" and c.number <= moment])
    size = min(len(old.data), len(file.now.data))
    pages = {
        at
        for call in file.calls
        if call.what == "write" and call.at + len(call.data) <= size
        for at in range(call.at - call.at % PAGE, call.at + len(call.data), PAGE)
    }
    for at in sorted(pages):
        data = bytearray(file.now.data)
        data[at : at + PAGE] = old.data[at : at + PAGE]
        yield Content(bytes(data), file.now.mtime)


MODELS = {"posix": posix, "ext4": ext4}
