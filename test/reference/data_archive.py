"""Zip and tar archives of every sound kind."""

import gzip
import io
import tarfile
import zipfile

from data_values import described, main

FILES = {'a.txt': b'alpha', 'folder/b.bin': bytes(range(256)) * 40, 'empty': b'', 'folder/ünï.txt': b'x' * 3000}
LONG = 'long/' * 40 + 'name.txt'
DATE = (1980, 1, 1, 0, 0, 0)


class Unseekable(io.RawIOBase):
    """What zipfile writes sizes behind the data for."""

    def __init__(self):
        self.parts = []

    def writable(self):
        return True

    def write(self, data):
        self.parts.append(bytes(data))
        return len(data)


def zipped(method, out=None, wide=False, comment=b''):
    target = out or io.BytesIO()
    with zipfile.ZipFile(target, 'w') as archive:
        archive.comment = comment
        archive.writestr(zipfile.ZipInfo('folder/', DATE), b'')
        for name, data in FILES.items():
            info = zipfile.ZipInfo(name, DATE)
            info.compress_type = method
            with archive.open(info, 'w', force_zip64=wide) as file:
                file.write(data)
    return b''.join(out.parts) if out else target.getvalue()


def tarred(form, compressed=False, long=False):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w', format=form) as archive:
        folder = tarfile.TarInfo('folder')
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        link = tarfile.TarInfo('link')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        archive.addfile(link)
        for name, data in contents(long).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(out.getvalue(), mtime=0) if compressed else out.getvalue()


def contents(long):
    return {**FILES, LONG: b'deep'} if long else FILES


def load(name, case, data):
    if not name.startswith('zip'):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {one: archive.read(one) for one in archive.namelist() if not one.endswith('/')}


def cases():
    files = {
        'zip, stored': zipped(zipfile.ZIP_STORED),
        'zip, deflated': zipped(zipfile.ZIP_DEFLATED),
        'zip, wide fields': zipped(zipfile.ZIP_DEFLATED, wide=True),
        'zip, sizes behind the data': zipped(zipfile.ZIP_DEFLATED, Unseekable()),
        'zip, stored, sizes behind': zipped(zipfile.ZIP_STORED, Unseekable()),
        'zip, with a comment': zipped(zipfile.ZIP_STORED, comment=b'a comment'),
        'tar, ustar': tarred(tarfile.USTAR_FORMAT),
        'tar, GNU': tarred(tarfile.GNU_FORMAT, long=True),
        'tar, pax': tarred(tarfile.PAX_FORMAT, long=True),
        'tgz, pax': tarred(tarfile.PAX_FORMAT, compressed=True, long=True),
    }
    for name, data in files.items():
        yield {'name': name, 'file': data, 'value': described(load(name, {}, data))}


if __name__ == '__main__':
    main({'archive': lambda: list(cases())}, lambda name, case, data: load(case['name'], case, data))
