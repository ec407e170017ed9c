"""Pickles of every protocol, of random objects, and hostile ones."""

import argparse
import collections
import copyreg
import io
import math
import pickle
import pickletools
import random
import struct

import numpy as np
import torch

from data_values import described, main

PROTOCOLS = range(6)


class DSTExample:
    """A class of SPECTRA's data, read as its fields."""

    def __init__(self, guid, slots):
        self.guid = guid
        self.slots = slots


class Slotted:
    __slots__ = ('left', 'right')

    def __init__(self):
        self.left, self.right = [1], 'two'


# As a data set's own script would have written them.
DSTExample.__module__ = Slotted.__module__ = '__main__'


def arrays():
    base = np.arange(6)
    for dtype in ['?', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8', 'c8', 'c16']:
        for order in '<>':
            yield f'{order}{dtype}', (base * 37 - 55).astype(dtype).reshape(2, 3).astype(np.dtype(order + dtype))
    yield 'fortran', np.asfortranarray(base.reshape(2, 3).astype('f4'))
    yield 'fortran 3', np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
    yield 'axes', np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2).copy('K')
    yield 'not contiguous', np.arange(12.0).reshape(3, 4)[::2, ::-1]
    yield 'no dimension', np.array(2.5)
    yield 'empty', np.zeros((3, 0, 2), 'i2')
    yield 'one row', np.zeros((1, 4), 'f8', order='F')
    yield 'text', np.array([['naïve', 'é😀'], ['', 'x']])
    yield 'text big-endian', np.array(['ab', 'ü']).astype('>U3')
    yield 'text fortran', np.asfortranarray(np.array([['a', 'b', 'c'], ['d', 'e', 'f']]))
    yield 'bytes', np.array([b'ab', b'\xff\x00c', b''])
    yield 'objects', np.array([[1, 'x', None], [[2.5], (3,), {'k': np.float32(4)}]], object)
    yield 'long', (np.arange(90_000) % 240).astype('u1').reshape(300, 300)
    yield 'long big-endian', (np.arange(20_000) % 96).astype('>f4')
    yield 'long fortran', np.asfortranarray((np.arange(40_000) % 96).astype('f2').reshape(4, 10_000))
    yield 'long bool', np.arange(70_000) % 3 == 0
    yield 'long text', np.array(['word', 'ü'] * 3000)


SCALARS = [np.float16(1.5), np.float32(-0.1), np.float64(math.pi), np.int8(-5), np.int64(2**62), np.uint64(2**64 - 1)]
SCALARS += [np.uint16(7), np.bool_(True), np.complex64(1 - 2j), np.str_('héé'), np.bytes_(b'\xff'), np.float32('nan')]

INTEGERS = [0, 1, -1, 127, 128, 255, 256, -128, -129, 65535, 65536, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1]
INTEGERS += [2**53 - 1, 2**53, -(2**53), 2**63 - 1, 2**63, -(2**63), 2**64, 10**40, -(10**40), 2**2039, -(2**2048)]

FLOATS = [0.0, -0.0, 1.5, -2.25e-308, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan, 0.1]

TEXTS = ['', 'ascii', 'héé', '日本', '😀', 'a\\b', '\\u0041', 'line\nbreak\r\x1a\0', '\ufffd', '\ud800x', 'x' * 300]
TEXTS += ['"quoted" \'both\'', '\x7f\x80\xff', '\\\\u00e9', 'é' * 40_000]


def shared():
    inner = [1, 2]
    return [inner, inner, {'again': inner}]


def torch_values():
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    return {
        'tensor': base,
        'view': base.t()[1:],
        'parameter': torch.nn.Parameter(torch.ones(2)),
        'grad': torch.zeros(2, requires_grad=True),
        'half': torch.tensor([1.5, -2]).half(),
        'bf16': torch.tensor([1.5, -2]).bfloat16(),
        'long': torch.arange(20_000) % 6,
        'device': torch.device('cuda', 1),
        'dtype': torch.int16,
        'size': torch.Size([2, 3]),
    }


def values():
    yield 'constants', [None, True, False, (), [], {}, set(), frozenset(), b'', bytearray()]
    yield 'integers', INTEGERS
    yield 'floats', FLOATS
    yield 'texts', TEXTS
    yield 'bytes', [b'\x00\xff', bytes(range(256)), bytearray(b'abc\xe9'), b'\xe9' * 70_000, bytearray(b'z' * 70_000)]
    yield 'complex', [1 + 2j, complex('-inf'), -0j]
    yield 'tuples', [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), ((),))]
    yield 'sets', [{1, 'a', (2, 3)}, frozenset({frozenset({4}), 'b'})]
    yield 'dicts', [{'a': 1, 'b': {'c': None}}, {1: 'x', 'y': 2, (3, 4): 5, None: 6}, {'__proto__': 1, 'constructor': 2}]
    yield 'keys', {'10': 'a', '9': 'b', 'x': {True: 1, 2.5: 2, b'k': 3, 2**70: 4}}
    yield 'ordered', collections.OrderedDict(b=1, a=[2])
    yield 'default', collections.defaultdict(list, k=[1])
    yield 'shared', shared()
    yield 'many items', [list(range(2500)), {f'k{i}': i for i in range(1200)}, set(range(1100))]
    yield 'deep', deep(200)
    yield 'scalars', SCALARS
    for name, array in arrays():
        yield f'array {name}', array
    yield 'namespace', argparse.Namespace(lr=0.1, layers=[1, 2])
    yield 'torch', torch_values()


def deep(levels):
    value = []
    for i in range(levels):
        value = [value] if i % 2 else {'k': value}
    return value


def protocols():
    for name, value in values():
        for protocol in PROTOCOLS:
            data = pickle.dumps(value, protocol)
            # In few protocols only, what is long.
            if len(data) > 30_000 and protocol not in (2, 5):
                continue
            yield case(f'{name}, protocol {protocol}', data)
            if b'numpy._core.multiarray' in data and len(data) < 30_000:
                yield case(f'{name}, protocol {protocol}, numpy 1', old_names(data))


def case(name, data, **facts):
    return {'name': name, 'file': data, 'value': described(wide(load(name, facts, data))), **facts}


def old_names(data):
    """The same pickle with the module names of numpy 1."""
    out = []
    ends = [position for _, _, position in pickletools.genops(data)][1:] + [len(data)]
    for (opcode, argument, position), end in zip(pickletools.genops(data), ends):
        piece = data[position:end]
        if opcode.name == 'FRAME':
            continue
        if opcode.name == 'SHORT_BINUNICODE' and argument.startswith('numpy._core'):
            text = argument.replace('numpy._core', 'numpy.core').encode()
            piece = bytes([0x8C, len(text)]) + text
        elif opcode.name == 'GLOBAL':
            piece = piece.replace(b'numpy._core', b'numpy.core')
        out.append(piece)
    return b''.join(out)


def records():
    """Read with the option `records`."""
    for protocol in PROTOCOLS:
        value = [DSTExample('train-1', {'price': 'cheap'}), DSTExample('train-2', {})]
        yield case(f'examples, protocol {protocol}', pickle.dumps(value, protocol), records=['DSTExample'])
        if protocol >= 2:
            yield case(f'slots, protocol {protocol}', pickle.dumps(Slotted(), protocol), records=['__main__.Slotted'])


def python2():
    """What Python 2 wrote, put together by hand; CPython reads it with the same encoding."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR"
    array += b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x00\\x00\\x80?\\x00\\x00 \\xc1'\ntb."
    numbers = struct.pack('<2f', 1, -10)
    binary = array[: array.index(b"S'\\x00")] + b'U' + bytes([8]) + numbers + b'tb.'
    plain = b"(dp0\nS'a'\np1\nS'it\\'s \\\\ \\t\\xe9\\101'\np2\nsV\\u00e9\nL12L\nsS\"d\"\nI01\ns."
    yield 'array', array, 'latin1'
    yield 'array, binary', binary, 'latin1'
    yield 'strings', plain, 'latin1'
    yield 'strings as bytes', plain, 'bytes'
    yield 'strings in UTF-8', b"\x80\x02U\x02\xc3\xa9.", 'utf-8'
    yield 'long string', b'T' + struct.pack('<i', 70_000) + b'\xe9' * 70_000 + b'.', 'latin1'
    yield 'old instance', b"(i__main__\nDSTExample\n(dS'guid'\nS'x'\nsb.", 'ascii'
    yield 'old instance, binary', b"(c__main__\nDSTExample\no}(U\x04guidK\x01ub.", 'ascii'
    yield 'set', b"c__builtin__\nset\n((lp1\nI1\naI2\natR.", 'ascii'
    yield 'bytes called', b"c__builtin__\nbytes\n(tRc__builtin__\nbytearray\n(V\\u00e9a\nVlatin-1\ntR\x86.", 'ascii'


def python2_cases():
    for name, data, encoding in python2():
        yield case(name, data, encoding=encoding, records=['DSTExample'])


def instructions():
    """Instructions that pickle itself writes seldom or never."""
    yield 'POP', b'K\x01K\x020.'
    yield 'POP of a mark', b'K\x01(0.'
    yield 'POP_MARK', b'K\x07(K\x01K\x021.'
    yield 'DUP', b'K\x012\x86.'
    yield 'DICT', b'(K\x01K\x02X\x01\x00\x00\x00aNd.'
    yield 'DICT, then SETITEMS', b'(K\x01K\x02d(K\x03K\x04u.'
    yield 'LIST, then APPEND', b'(K\x01lK\x02a.'
    yield 'GET and PUT in text', b"(lp000\nI1\nag0\n0g0\n\x86."
    yield 'PUT out of order', b']q\x05h\x05\x86.'
    yield 'a memo written twice', b'K\x01q\x00K\x02q\x00h\x00\x87.'
    yield 'LONG_BINPUT far away', b']r\xa0\x86\x01\0j\xa0\x86\x01\0\x86.'
    yield 'BINUNICODE8, BINBYTES8', b'\x80\x04\x8d\x02\0\0\0\0\0\0\0\xc3\xa9\x8e\x01\0\0\0\0\0\0\0\xff\x86.'
    yield 'LONG4', b'\x8b\x09\0\0\0' + b'\xff' * 8 + b'\x80.'
    yield 'LONG1 of nothing', b'\x8a\x00.'
    yield 'BININT, negative', b'J\xfe\xff\xff\xff.'
    yield 'INT for booleans', b'I01\nI00\nI1\n\x87.'
    yield 'INT beyond 64 bits', b'I-123456789012345678901234567890\n.'
    yield 'LONG without L', b'L-5\n.'
    yield 'FLOAT spellings', b'(F1e5\nF-inf\nFnan\nF.5\nF3.\nF-0\nl.'
    yield 'UNICODE escapes', b'V\\u00e9\\U0001f600\\n\\\\u0041\xe9\n.'
    yield 'a list in itself, appended', b']K\x01a.'
    yield 'REDUCE of set', b'c__builtin__\nset\n](K\x01K\x02e\x85R.'
    yield 'NEWOBJ_EX without keywords', b'ccollections\nOrderedDict\n)}\x92K\x01K\x02s.'
    yield 'something behind the end', b'K\x01.K\x02garbage'


def instruction_cases():
    for name, data in instructions():
        yield case(name, data)


def random_cases():
    generator = random.Random(20)
    return [case(f'random {i}', pickle.dumps(random_value(generator, 4), i % 6)) for i in range(360)]


def random_value(generator, depth):
    simple = [
        lambda: generator.choice(INTEGERS) + generator.randint(-3, 3),
        lambda: generator.choice(FLOATS) * generator.choice([1.0, generator.random()]),
        lambda: ''.join(chr(generator.choice([65, 92, 10, 39, 0xE9, 0x4E2D, 0x1F600, 0xFFFD, 0])) for _ in range(generator.randint(0, 8))),
        lambda: bytes(generator.randrange(256) for _ in range(generator.randint(0, 9))),
        lambda: generator.choice([None, True, False]),
        lambda: complex(generator.random(), generator.choice(FLOATS[:3])),
        lambda: random_array(generator),
        lambda: generator.choice(SCALARS),
    ]
    if depth == 0 or generator.random() < 0.3:
        return generator.choice(simple)()
    inner = lambda: random_value(generator, depth - 1)
    size = generator.randint(0, 5)
    kind = generator.choice(['list', 'tuple', 'dict', 'names', 'set', 'shared'])
    if kind == 'list':
        return [inner() for _ in range(size)]
    if kind == 'tuple':
        return tuple(inner() for _ in range(size))
    if kind == 'shared':
        return [inner()] * size
    if kind == 'set':
        return {generator.choice(INTEGERS) for _ in range(size)} | {'s'}
    if kind == 'names':
        return {f'k{generator.randrange(20)}': inner() for _ in range(size)}
    return {generator.choice([generator.randrange(99), 'x', (1, generator.randrange(9)), b'b', None]): inner() for _ in range(size)}


def random_array(generator):
    shape = [generator.randint(0, 3) for _ in range(generator.randint(0, 3))]
    dtype = generator.choice(['?', '<i2', '>i4', '<u8', '<f2', '>f4', '<f8', '<c8', '<U2', '|S3'])
    array = np.array([generator.randrange(90) for _ in range(math.prod(shape))]).astype(dtype).reshape(shape)
    return np.asfortranarray(array) if generator.random() < 0.3 else array


def load(name, case, data):
    assert copyreg  # protocols 0 and 1 rebuild instances with it
    return pickle.load(io.BytesIO(data), encoding=case.get('encoding', 'ASCII'))


def wide(value):
    """Slots have no __dict__ that could be described."""
    return {'left': value.left, 'right': value.right} if isinstance(value, Slotted) else value


if __name__ == '__main__':
    import __main__

    __main__.DSTExample, __main__.Slotted = DSTExample, Slotted
    main(
        {
            'pickle-protocols': lambda: list(protocols()),
            'pickle-records': lambda: list(records()),
            'pickle-python2': lambda: list(python2_cases()),
            'pickle-instructions': lambda: list(instruction_cases()),
            'pickle-random': random_cases,
        },
        lambda name, case, data: wide(load(name, case, data)),
    )
