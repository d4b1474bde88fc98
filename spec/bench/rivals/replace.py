"""replace.py one|all N DIRECTORY: what a careful Python script does, file by file.

For each file write a temporary one beside it, set its mode, and os.replace() it over the old
one. Readers see a mixture meanwhile. It takes turns with others as floor.c does: a number of
repetitions a line on standard input, as many microseconds a line on standard output.
"""
import os
import shutil
import sys
import tempfile
import time

SIZE = 1024


def replace(path, data):
    temporary = path + ".tmp"
    with open(temporary, "wb") as file:
        file.write(data)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def main():
    which, count, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    here = tempfile.mkdtemp(prefix="python-", dir=directory)
    paths = [os.path.join(here, "f%05d" % i) for i in range(count)]
    for path in paths:
        replace(path, b"a" * SIZE)
    if which == "one":
        paths = [paths[count // 2]]
    contents = [b"b" * SIZE, b"a" * SIZE]
    for line in sys.stdin:
        took = []
        for _ in range(int(line)):
            start = time.perf_counter_ns()
            for path in paths:
                replace(path, contents[0])
            took.append("%.3f" % ((time.perf_counter_ns() - start) / 1000))
            contents.reverse()
        print(" ".join(took), flush=True)
    shutil.rmtree(here)


main()
