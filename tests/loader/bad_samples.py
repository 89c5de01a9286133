"""Shards with bad samples in them, for the tests of what becomes of those."""

from tests.loader.samples import sample

N = 24
BAD = {3: b"", 7: b"<html>404</html>", 12: "cut", 20: b"\xff\xd8\xff\xe0 broken"}


def samples(bad=BAD, n=N):
    for i in range(n):
        one = sample(i)
        if i in bad:
            one["jpg"] = one["jpg"][:-150] if bad[i] == "cut" else bad[i]
        yield one
