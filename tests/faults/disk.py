"""A disk that follows a log of calls: what is there, and what of it would survive a power cut."""

import hashlib
import math
import os


class Content:
    """One possible content of a file, with the time that the file then shows."""

    __slots__ = ("data", "key", "mtime")

    def __init__(self, data=b"", mtime=0):
        self.data = data
        self.mtime = mtime
        self.key = hashlib.sha1(data).digest()


class Call:
    """One change of a file: data at an offset, or a new size."""

    __slots__ = ("at", "data", "mtime", "number", "what")

    def __init__(self, number, what, mtime, at, data=b""):
        self.number = number  # in the log
        self.what = what  # write, truncate, allocate
        self.mtime = mtime
        self.at = at
        self.data = data

    def on(self, data, first=0, last=None):
        """Change `data`; of a write only the bytes first to last arrive, but the size is right."""
        end = self.at + len(self.data)
        if self.what == "truncate":
            del data[self.at :]
        data.extend(bytes(max(0, end - len(data))))
        new = self.data[first:last]
        data[self.at + first : self.at + first + len(new)] = new


class File:
    """A file: what is surely on the disk, and the calls since."""

    def __init__(self, inode):
        self.inode = inode
        self.base = self.now = Content()
        self.calls = []
        self.flushed = []  # (number of a rename over another file, how many calls came before)

    def change(self, call):
        self.calls.append(call)
        self.now = after(self.now, [call])

    def sync(self):
        self.base, self.calls, self.flushed = self.now, [], []

    def grows(self):
        """Whether a call since the last sync may have changed the size."""
        size = len(self.base.data)
        return any(call.what != "write" or call.at + len(call.data) > size for call in self.calls)


class Folder:
    """A folder: every name that was set, None for one that went, and which are surely there."""

    def __init__(self, inode):
        self.inode = inode
        self.history = []  # (number in the log, name, File, Folder or None)
        self.synced = 0

    def names(self, until=math.inf):
        return {name: thing for number, name, thing in self.history if number <= until}

    def sync(self):
        self.synced = len(self.history)

    def options(self):
        """Return what each name may be after a cut: (number, thing) in order of time."""
        found = {}
        for _, name, thing in self.history[: self.synced]:
            found[name] = [(0, thing)]
        for number, name, thing in self.history[self.synced :]:
            found.setdefault(name, [(0, None)]).append((number, thing))
        return found


def after(content, calls):
    """Return a content after whole calls."""
    data = bytearray(content.data)
    for call in calls:
        call.on(data)
    return Content(bytes(data), calls[-1].mtime if calls else content.mtime)


class Disk:
    """Follows a log; at any point it knows what is there, and what of it would survive."""

    def __init__(self, entries):
        """Begin with what `entries` make, all of it on the disk."""
        self.number = 0
        self.objects = {}
        self.root = Folder(0)
        self.marks = []
        self.at_once = []  # numbers of calls that change names, or a size at once
        self.committed = 0  # the number up to which ext4 has all names and sizes on the disk
        for entry in entries:
            self.follow(entry)
        for thing in self.objects.values():
            thing.sync()
        self.committed = self.number

    def follow(self, entry):
        """Take one entry of the log."""
        self.number += 1
        what, *values = entry
        if what == "mark":
            self.marks.append(tuple(values))
        elif what in ("create", "mkdir"):
            path, inode = values
            thing = self.objects[inode] = (File if what == "create" else Folder)(inode)
            if path == ".":
                self.root = thing
            else:
                self._set(path, thing)
        elif what == "link":
            self._set(values[1], self._at(values[0]))
        elif what == "unlink":
            self._set(values[0], None)
        elif what == "rename":
            thing, over = self._at(values[0]), self._at(values[1])
            if over and isinstance(thing, File):
                thing.flushed.append((self.number, len(thing.calls)))
            self._set(values[0], None)
            self._set(values[1], thing)
        elif what in ("fsync", "fdatasync"):
            thing = self.objects[values[0]]
            if isinstance(thing, Folder) or what == "fsync" or thing.grows():
                self.committed = self.number
            thing.sync()
        else:
            inode, *values = values
            self.objects[inode].change(Call(self.number, what, *values))
            if what != "write":
                self.at_once.append(self.number)

    def _folder(self, path):
        folder = self.root
        for name in path.split("/")[:-1]:
            folder = folder.names()[name]
        return folder

    def _at(self, path):
        return self._folder(path).names().get(path.split("/")[-1])

    def _set(self, path, thing):
        self._folder(path).history.append((self.number, path.split("/")[-1], thing))
        self.at_once.append(self.number)

    def tree(self):
        """Return what is there now."""
        return Tree(self.root, Folder.names, lambda file: file.now)


class Tree:
    """One possible disk: folders, and files with their content; two names may be one file."""

    def __init__(self, root, names, content):
        self.files = {}  # path -> (file, its content)
        self.folders = []
        self._add("", root, names, content)

    def _add(self, path, folder, names, content):
        for name, thing in sorted(names(folder).items()):
            if isinstance(thing, Folder):
                self.folders.append(path + name)
                self._add(f"{path}{name}/", thing, names, content)
            elif thing is not None:
                self.files[path + name] = thing, content(thing)

    def key(self):
        """Return what tells this tree from another."""
        numbers = {}
        same = [numbers.setdefault(file, len(numbers)) for file, _ in self.files.values()]
        contents = [(path, found.key) for path, (_, found) in self.files.items()]
        return tuple(self.folders), tuple(contents), tuple(same)

    def data(self, path):
        """Return the content of a file, None when there is none."""
        return self.files[path][1].data if path in self.files else None

    def make(self, root):
        """Make this tree in an empty folder; return its inodes by those of the log."""
        made = {}
        for path in self.folders:
            os.mkdir(os.path.join(root, path))
        for path, (file, content) in self.files.items():
            target = os.path.join(root, path)
            if file in made:
                os.link(made[file], target)
                continue
            made[file] = target
            with open(target, "wb") as out:
                out.write(content.data.rstrip(b"\0"))
                out.truncate(len(content.data))
            os.utime(target, ns=(content.mtime, content.mtime))
        return {file.inode: os.stat(target).st_ino for file, target in made.items()}
