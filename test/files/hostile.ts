import { gzipSync } from 'node:zlib'
import { archive, data, latin1, makeTar, pax } from './tar-maker.js'
import { makeZip } from './zip-maker.js'

/** Files made to do harm. Each must be a typed error that says why, within a second and little memory. */

const short = (text: string) => latin1(`\x8c${String.fromCharCode(text.length)}${text}`)
const le = (value: number, width: number) => {
  const bytes = Buffer.alloc(width)
  for (let i = 0; i < Math.min(width, 6); i += 1) bytes[i] = Math.floor(value / 256 ** i) & 255
  return bytes
}
const proto4 = (...parts: Buffer[]) => Buffer.concat([latin1('\x80\x04'), ...parts, latin1('.')])
const global4 = (module: string, name: string) => Buffer.concat([short(module), short(name), latin1('\x93')])
const repeat = (text: string, times: number) => latin1(text.repeat(times))

const list = (items: number) => Buffer.concat([latin1(']('), repeat('N', items), latin1('e')])
const dtype = (code: string) =>
  `cnumpy\ndtype\n(S'${code}'\nI0\nI1\ntR(I3\nS'<'\nNNN${code.startsWith('S') ? 'I1' : 'I-1'}\nI-1\nI0\ntb`
const array = (shape: string, code: string, data: string) =>
  latin1(
    `cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n${shape}${dtype(code)}I00\n${data}tb`,
  )

/** Zeros that a few kilobytes hold when packed. */
const bomb = Buffer.alloc(2e8)

/** Name, bytes, what the error says. */
export const hostilePickles: [name: string, file: Buffer, says: RegExp][] = [
  ['os.system by REDUCE', latin1("cos\nsystem\n(S'touch /tmp/x'\ntR."), /"os\.system"/],
  ['posix.system', latin1("cposix\nsystem\n(S'touch x'\ntR."), /"posix\.system"/],
  ['nt.system by INST', latin1("(S'touch x'\nint\nsystem\n."), /"nt\.system"/],
  ['os.system by OBJ', latin1("(cos\nsystem\nS'touch x'\no."), /"os\.system"/],
  ['subprocess.Popen by NEWOBJ', latin1("csubprocess\nPopen\n(S'ls'\nt\x81."), /"subprocess\.Popen"/],
  ['subprocess.Popen by NEWOBJ_EX', proto4(global4('subprocess', 'Popen'), latin1(')}\x92')), /"subprocess\.Popen"/],
  ['eval', latin1("c__builtin__\neval\n(S'1'\ntR."), /"__builtin__\.eval"/],
  ['exec by STACK_GLOBAL', proto4(global4('builtins', 'exec')), /"builtins\.exec"/],
  [
    'eval, names from the memo',
    proto4(short('builtins'), latin1('\x94'), short('eval'), latin1('\x940h\0h\x01\x93')),
    /"builtins\.eval"/,
  ],
  ['getattr', proto4(global4('builtins', 'getattr')), /"builtins\.getattr"/],
  ['__import__', latin1("c__builtin__\n__import__\n(S'os'\ntR."), /__import__/],
  ['a dotted name', proto4(global4('numpy.core.multiarray', '_reconstruct.__globals__')), /_reconstruct\.__globals__/],
  [
    'a dotted name behind an allowed class',
    proto4(global4('collections', 'OrderedDict.fromkeys.__self__')),
    /fromkeys/,
  ],
  [
    'an allowed name in another place',
    proto4(global4('numpy', 'core.multiarray._reconstruct')),
    /core\.multiarray\._reconstruct/,
  ],
  ['a colon in the module', proto4(global4('builtins:set', '')), /builtins:set/],
  ['__proto__ as a global', proto4(global4('__proto__', 'constructor')), /__proto__\.constructor/],
  [
    'copyreg._reconstructor of a function',
    latin1('ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.'),
    /"os\.system"/,
  ],
  [
    'copyreg._reconstructor of an allowed name',
    latin1('ccopy_reg\n_reconstructor\n(c_codecs\nencode\nc__builtin__\nobject\nNtR.'),
    /_codecs\.encode/,
  ],
  ['a codec that runs', latin1('c_codecs\nencode\n(Vx\nVzlib_codec\ntR.'), /expected a text encoded in latin1/],
  ['operator.attrgetter', latin1("coperator\nattrgetter\n(S'system'\ntR."), /operator\.attrgetter/],
  ['functools.partial', latin1('cfunctools\npartial\n(cos\nsystem\ntR.'), /functools\.partial/],
  ['runpy', latin1("crunpy\n_run_code\n(S'x'\ntR."), /runpy\._run_code/],
  ['torch.hub.load', latin1("ctorch.hub\nload\n(S'x'\ntR."), /torch\.hub\.load/],
  ['torch.load', latin1("ctorch.serialization\nload\n(S'x'\ntR."), /torch\.serialization\.load/],
  ['numpy.load', latin1("cnumpy\nload\n(S'x'\ntR."), /numpy\.load/],
  ['numpy.testing runs a string', latin1("cnumpy.testing._private.utils\nrunstring\n(S'x'\ntR."), /runstring/],
  ['pip', latin1('cpip\nmain\n(lp0\ntR.'), /pip\.main/],
  ['BUILD on a type', latin1("c__builtin__\nint\n}S'__setstate__'\ncos\nsystem\nsb."), /"os\.system"/],
  ['BUILD on an allowed function', latin1('c_codecs\nencode\n}b.'), /gives a state to _codecs\.encode/],
  ['a type that is called', latin1("c__builtin__\nint\n(S'1'\ntR."), /calls builtins\.int/],
  ['a list that is called', latin1(']()R.'), /stack|calls/],
  [
    'keyword arguments',
    proto4(global4('collections', 'OrderedDict'), latin1(')}'), short('k'), latin1('Ns\x92')),
    /keyword arguments/,
  ],
  ['a function as value', latin1('c_codecs\nencode\n.'), /which is not data/],
  ['a type as value', latin1('(c__builtin__\nlist\nl.'), /builtins\.list.*not data/],
  ['the extension registry', latin1('\x80\x02\x82\x01.'), /extension registry/],
  ['a buffer outside', latin1('\x80\x05\x97.'), /buffers outside/],
  ['a persistent id', latin1("S'x'\nQ."), /outside itself/],
  ['protocol 6', latin1('\x80\x06N.'), /protocol 6/],
  ['an unknown instruction', latin1('\x80\x04\xfe.'), /0xfe is not an instruction/],
  ['nothing', Buffer.alloc(0), /ends too early/],
  ['no end', latin1('](K\x01'), /ends too early/],
  ['a cut text', latin1('\x80\x04\x8c\x30abc'), /ends too early/],
  ['an empty stack', latin1('.'), /nothing on the stack/],
  ['a mark that was not set', latin1('t.'), /mark/],
  ['below a mark', latin1('K\x01(0000.'), /stack|mark/],
  ['a memo that was not stored', latin1('h\x05.'), /memo 5/],
  ['a text of 2^63 bytes', Buffer.concat([latin1('\x80\x04\x8d'), Buffer.alloc(8, 0xff)]), /claims|too early/],
  ['bytes of 2^40', Buffer.concat([latin1('\x80\x04\x8e'), le(2 ** 40, 8), latin1('x.')]), /too early/],
  ['a text of 4 GiB', Buffer.concat([latin1('X\xff\xff\xff\xff'), latin1('x.')]), /too early/],
  ['a string of negative length', latin1('T\xff\xff\xff\xffx.'), /negative/],
  ['an int of negative length', latin1('\x8b\xff\xff\xff\xffx.'), /int of -1 bytes/],
  ['an int of 2 GiB', latin1('\x8b\xff\xff\xff\x7fx.'), /int of \d+ bytes/],
  ['an int of a million digits', Buffer.concat([latin1('I'), repeat('9', 1e6), latin1('\n.')]), /not an integer/],
  ['a float of a million digits', Buffer.concat([latin1('F'), repeat('9', 1e6), latin1('\n.')]), /not a number/],
  ['a frame of 2^63', latin1('\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN.'), /frame/],
  [
    'lists nested a million deep',
    Buffer.concat([repeat(']', 1e6), repeat('a', 1e6 - 1), latin1('.')]),
    /nested deeper/,
  ],
  ['tuples nested a million deep', Buffer.concat([latin1('N'), repeat('\x85', 1e6), latin1('.')]), /nested deeper/],
  [
    'dicts nested 300,000 deep',
    Buffer.concat([repeat('}N', 3e5), latin1('N'), repeat('s', 3e5), latin1('.')]),
    /nested deeper/,
  ],
  ['a million marks', Buffer.concat([repeat('(', 1e6), latin1('.')]), /nothing on the stack/],
  [
    'copies of one list',
    Buffer.concat([list(1e5), latin1('q\0'), repeat('0c__builtin__\nset\nh\0\x85R', 5000), latin1('.')]),
    /same data too often/,
  ],
  [
    'copies of one text',
    Buffer.concat([
      latin1('X'),
      le(65000, 4),
      repeat('x', 65000),
      latin1('q\0'),
      repeat('0c_codecs\nencode\nh\0Vlatin1\n\x86R', 5000),
      latin1('.'),
    ]),
    /same data too often/,
  ],
  [
    'copies of the bytes of one array',
    Buffer.concat([
      latin1('B'),
      le(1e6, 4),
      Buffer.alloc(1e6),
      latin1('q\0'),
      Buffer.concat(Array.from({ length: 2000 }, () => array('(I1000000\nt', 'u1', 'h\0'))),
      latin1('.'),
    ]),
    /same data too often/,
  ],
  [
    'an array larger than its bytes',
    Buffer.concat([array('(I100\nt', 'f4', "S'abcd'\n"), latin1('.')]),
    /needs 400 bytes, with 4/,
  ],
  [
    'an array of 2^62 elements',
    Buffer.concat([array('(L4611686018427387904L\nt', 'f4', "S''\n"), latin1('.')]),
    /shape/,
  ],
  [
    'an array of 2^40 squared',
    Buffer.concat([array('(L1099511627776L\nL1099511627776L\nt', 'f4', "S''\n"), latin1('.')]),
    /needs \d+ bytes/,
  ],
  ['an array of negative size', Buffer.concat([array('(I-1\nt', 'f4', "S''\n"), latin1('.')]), /shape/],
  [
    '10^9 empty lists',
    Buffer.concat([array('(I1000000000\nI0\nt', 'S1', "S''\n"), latin1('.')]),
    /same data too often/,
  ],
  ['an array of dates', Buffer.concat([array('(I1\nt', 'M8', "S'12345678'\n"), latin1('.')]), /"M8"/],
  ['an array of records', latin1("cnumpy\ndtype\n(S'V8'\nI0\nI1\ntR."), /"V8"/],
  [
    'an array without a state',
    latin1("cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR."),
    /expected the contents of an array/,
  ],
  ['a list as a key', latin1('}]Ns(K\x01d}Nss.'), /key/],
  ['a text that is not UTF-8', latin1('X\x01\0\0\0\xff.'), /expected a text in UTF-8/],
  ['a text with a broken escape', latin1('V\\u12\n.'), /not an escaped text/],
  ['a text beyond Unicode', latin1('V\\U00110000\n.'), /not an escaped text/],
  ['a storage that is no file', latin1("ctorch.storage\n_load_from_bytes\n(S'abc'\ntR."), /byte 0 of the pickle/],
  [
    'a storage that is no file, when other work is due',
    Buffer.concat([repeat('N0', 1e6), latin1("ctorch.storage\n_load_from_bytes\n(S'f4'\ntR.")]),
    /not an instruction/,
  ],
  ['a gzip bomb', gzipSync(bomb, { level: 1 }), /bomb|too early|instruction/],
  ['a gzip that breaks off', gzipSync(Buffer.concat([list(1e6), latin1('.')])).subarray(0, 400), /broken|too early/],
]

const megabytes = Buffer.alloc(8e6)
const entry = (name: string, size = 100) => ({ name, data: data(size) })

export const hostileZips: [name: string, file: Buffer, says: RegExp][] = [
  ['no end', makeZip([entry('a')]).subarray(0, -1), /its end is missing/],
  ['an empty file with a magic number', latin1('PK\x03\x04'), /zip archive/],
  ['an entry that leads out', makeZip([entry('../../x')]), /"\.\.\/\.\.\/x" leads out/],
  ['an entry that leads out by backslashes', makeZip([entry('a\\..\\..\\x')]), /leads out/],
  ['a folder that leads out', makeZip([entry('../'), entry('a')]), /leads out/],
  ['an absolute entry', makeZip([entry('/etc/passwd')]), /leads out/],
  ['an entry on a drive', makeZip([entry('C:\\x')]), /leads out/],
  ['NUL in a name', makeZip([entry('a\0b')]), /"a\\u0000b" has a name that no file can have/],
  ['no name', makeZip([entry('')]), /no file can have/],
  [
    'many entries, none of them a bomb',
    makeZip(Array.from({ length: 20 }, (_, i) => ({ name: `a${i}`, data: megabytes, deflate: true }))),
    /unpack to 160000000: it looks like a decompression bomb/,
  ],
  ['two entries of one name', makeZip([entry('a'), entry('a', 50)]), /two entries named "a"/],
  [
    'an entry inside another',
    makeZip([{ ...entry('a', 1000) }, { ...entry('b', 1000), says: { offset: 200 } }]),
    /overlaps/,
  ],
  [
    'many names for the same bytes',
    makeZip([
      entry('a', 1000),
      ...Array.from({ length: 50 }, (_, i) => ({
        ...entry(`b${i}`, 0),
        says: { offset: 0, size: 1000, packed: 1000 },
      })),
    ]),
    /overlaps/,
  ],
  ['an entry behind the directory', makeZip([{ ...entry('a'), says: { offset: 1e6 } }]), /overlaps the directory/],
  [
    'an entry larger than the file',
    makeZip([{ ...entry('a'), says: { size: 1e9, packed: 1e9 } }]),
    /overlaps the directory/,
  ],
  ['a stored entry of two sizes', makeZip([{ ...entry('a'), says: { size: 99 } }]), /claims to have 99/],
  [
    'a deflated entry that says too little',
    makeZip([{ ...entry('a', 5000), deflate: true, says: { size: 100 } }]),
    /other sizes|more than the 100/,
  ],
  ['a wrong checksum', makeZip([{ ...entry('a'), says: { crc: 1 } }]), /checksum/],
  ['another name in the header', makeZip([{ ...entry('a'), says: { name: 'b' } }]), /another name/],
  ['another method in the header', makeZip([{ ...entry('a'), says: { method: 8 } }]), /another method/],
  ['an encrypted entry', makeZip([{ ...entry('a'), says: { flags: 1 } }]), /encrypted/],
  ['an unknown method', makeZip([{ ...entry('a'), says: { method: 99 } }]), /method 99/],
  [
    'a count that is too high',
    makeZip([entry('a')], (end) => end.fill(Buffer.of(9, 0, 9, 0), 8, 12)),
    /claims 9 entries|record 2 of 9/,
  ],
  [
    'a count that is too low',
    makeZip([entry('a'), entry('b')], (end) => end.fill(Buffer.of(1, 0, 1, 0), 8, 12)),
    /goes on/,
  ],
  ['a directory somewhere else', makeZip([entry('a')], (end) => end.writeUInt32LE(5, 16)), /says that the directory/],
  ['a directory of 4 GiB', makeZip([entry('a')], (end) => end.writeUInt32LE(0xfffffff0, 12)), /claims|says/],
  ['zip64 without its part', makeZip([entry('a')], (end) => end.writeUInt32LE(0xffffffff, 16)), /zip64/],
  ['something in front', Buffer.concat([latin1('PK\x03\x04 front'), makeZip([entry('a')])]), /says that the directory/],
  ['a bomb', makeZip([{ name: 'a', data: bomb, deflate: true }]), /bomb/],
  [
    'a bomb that says it is small',
    makeZip([{ name: 'a', data: bomb, deflate: true, says: { size: 1000 } }]),
    /other sizes|more than the 1000/,
  ],
]

export const hostileTars: [name: string, file: Buffer, says: RegExp][] = [
  ['a path that leads out', archive(makeTar('../../etc/passwd', {}, data(10))), /leads out/],
  ['an absolute path', archive(makeTar('/etc/passwd', {}, data(10))), /leads out/],
  ['a path that leads out by the end', archive(makeTar('a/b/..', {}, data(10))), /leads out/],
  ['a path that leads out in a long name', archive(pax('path=x/../../y'), makeTar('y', {}, data(10))), /leads out/],
  [
    'a link that leads out by its own name',
    archive(makeTar('../x', { type: '2', link: '/etc' }, data(0))),
    /leads out/,
  ],
  ['NUL in a long name', archive(pax('path=a\0b'), makeTar('y', {}, data(10))), /"a\\u0000b" has a name that no file/],
  ['no name', archive(makeTar('', {}, data(10))), /no file can have/],
  ['a file with holes', archive(makeTar('a', { type: 'S' }, data(10))), /"a" is stored sparse/],
  [
    'a file with holes in a record',
    archive(pax('GNU.sparse.major=1'), makeTar('a', {}, data(10))),
    /stored sparse or in parts/,
  ],
  ['a size with letters', archive(makeTar('a', { size: '12x45678901' }, data(10))), /expected a number as size/],
  ['a record of another length', archive(makeTar('pax', { type: 'x' }, latin1('9 path=../x\n'))), /not a valid tar/],
  ['a record of size 10^30', archive(pax(`size=1${'0'.repeat(30)}`), makeTar('a', {}, data(10))), /says the size/],
  ['a size of 8 GiB', archive(makeTar('a', { size: '77777777777' }, data(10))), /at most 1073741824/],
  ['a size of 2^80', archive(makeTar('a', { size: `\x80\0${'\xff'.repeat(10)}` }, data(10))), /bytes|not a valid tar/],
  ['a negative size', archive(makeTar('a', { size: '\xff'.repeat(12) }, data(10))), /not a valid tar/],
  ['a negative size in a record', archive(pax('size=-5'), makeTar('a', {}, data(10))), /not a valid tar/],
  [
    'a header record of 8 GiB',
    archive(makeTar('pax', { type: 'x', size: '77777777777' }, data(10))),
    /not a valid tar/,
  ],
  [
    'a wrong checksum',
    archive(Buffer.concat([Buffer.from('x'), makeTar('abc', {}, data(10)).subarray(1)])),
    /not a valid tar/,
  ],
  ['an end inside a file', makeTar('a', {}, data(5000)).subarray(0, 1000), /not a valid tar/],
  ['text', latin1('hello '.repeat(200)), /not a valid tar/],
  ['a packed bomb', gzipSync(archive(makeTar('a', {}, bomb)), { level: 1 }), /bomb/],
  ['a packed file that breaks off', gzipSync(archive(makeTar('a', {}, data(5000)))).subarray(0, 100), /broken/],
]

const storage = (count: string, kind = 'FloatStorage') => `(S'storage'\nctorch\n${kind}\nS'0'\nS'cpu'\n${count}tQ`
const rebuilt = (offset: string, size: string, stride: string, count = 'I4\n') =>
  latin1(`ctorch._utils\n_rebuild_tensor_v2\n(${storage(count)}${offset}(${size}t(${stride}tI00\nNtR.`)
const torchZip = (pickle: Buffer, bytes = 16, more: { name: string; data: Buffer }[] = []) =>
  makeZip([{ name: 'a/data.pkl', data: pickle }, { name: 'a/data/0', data: data(bytes) }, ...more])
const longs = (...values: bigint[]) =>
  Buffer.concat(
    values.map((value) => {
      const bytes = Buffer.alloc(8)
      bytes.writeBigInt64LE(value)
      return bytes
    }),
  )
const head = latin1(
  '\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\0\0\0little_endian\x88s.',
)
const oldStorage = (count: number) => `(S'storage'\nctorch\nFloatStorage\nS'k'\nS'cpu'\nI${count}\nNtQ`
const oldTensor = (count: number, size: number) =>
  latin1(`ctorch._utils\n_rebuild_tensor_v2\n(${oldStorage(count)}I0\n(I${size}\nt(I1\ntI00\nNtR.`)
const keys = latin1("](S'k'\ne.")

export const hostileTorch: [name: string, file: Buffer, says: RegExp][] = [
  ['nothing', Buffer.alloc(0), /not a file of torch\.save/],
  ['text', latin1('version https://git-lfs.github.com/spec/v1\n'), /not a file of torch\.save/],
  ['a zip of other things', makeZip([entry('a/b')]), /expected a 'data\.pkl'/],
  ['code in the pickle', torchZip(latin1("cos\nsystem\n(S'x'\ntR.")), /"os\.system"/],
  ['a size beyond the storage', torchZip(rebuilt('I0\n', 'I5\n', 'I1\n')), /reach beyond its storage/],
  ['an offset beyond the storage', torchZip(rebuilt('I3\n', 'I2\n', 'I1\n')), /reach beyond its storage/],
  ['a stride beyond the storage', torchZip(rebuilt('I0\n', 'I2\n', 'I9\n')), /reach beyond its storage/],
  ['a negative offset', torchZip(rebuilt('I-1\n', 'I2\n', 'I1\n')), /offset -1/],
  ['a negative stride', torchZip(rebuilt('I0\n', 'I2\n', 'I-1\n')), /stride/],
  ['a negative size', torchZip(rebuilt('I0\n', 'I-2\n', 'I1\n')), /shape/],
  [
    'sizes that overflow',
    torchZip(rebuilt('I0\n', 'L9007199254740991L\nL9007199254740991L\n', 'I0\nI0\n')),
    /reach beyond/,
  ],
  ['a stride of 2^52', torchZip(rebuilt('I0\n', 'I4097\n', 'L4503599627370496L\n')), /reach beyond/],
  [
    'a storage larger than its file',
    torchZip(rebuilt('I0\n', 'I2\n', 'I1\n', 'I5\n')),
    /expected 20 bytes in the storage .*, got 16/,
  ],
  [
    'a storage of 2^61 elements',
    torchZip(rebuilt('I0\n', 'I2\n', 'I1\n', 'L2305843009213693952L\n')),
    /a reference to a storage/,
  ],
  [
    'a storage that is missing',
    makeZip([{ name: 'a/data.pkl', data: rebuilt('I0\n', 'I2\n', 'I1\n') }]),
    /in the archive, got none/,
  ],
  [
    'a storage of no type',
    torchZip(latin1(`${storage('I4\n').replace('ctorch\nFloatStorage\n', 'N')}.`)),
    /storage of the type/,
  ],
  [
    'a tensor without a storage',
    torchZip(latin1('ctorch._utils\n_rebuild_tensor_v2\n(NI0\n(t(tI00\nNtR.')),
    /without a storage|stack/,
  ],
  [
    'a storage that is a bomb',
    makeZip([
      { name: 'a/data.pkl', data: rebuilt('I0\n', 'I2\n', 'I1\n') },
      { name: 'a/data/0', data: bomb, deflate: true },
    ]),
    /bomb/,
  ],
  [
    'code in a rebuilding function',
    torchZip(latin1('ctorch._tensor\n_rebuild_from_type_v2\n(c_codecs\nencode\nctorch\nTensor\n(tNtR.')),
    /unknown way/,
  ],
  ['a magic number of another kind', Buffer.concat([latin1('\x80\x02M\xe9\x03.'), head]), /magic number/],
  ['an old file without storages', Buffer.concat([head, oldTensor(4, 4)]), /too early/],
  [
    'an old file whose storage is missing',
    Buffer.concat([head, oldTensor(4, 4), latin1('].')]),
    /storage k is missing/,
  ],
  [
    'an old file whose storage is listed twice',
    Buffer.concat([head, oldTensor(1, 1), latin1("](S'k'\nS'k'\ne."), longs(1n), data(4), longs(1n), data(4)]),
    /nothing refers to/,
  ],
  [
    'an old storage of another size',
    Buffer.concat([head, oldTensor(4, 4), keys, longs(5n), data(20)]),
    /has 5 elements, expected 4/,
  ],
  [
    'an old storage of a negative size',
    Buffer.concat([head, oldTensor(4, 4), keys, longs(-4n), data(16)]),
    /has -4 elements/,
  ],
  ['an old storage that is cut', Buffer.concat([head, oldTensor(4, 4), keys, longs(4n), data(15)]), /ends at byte/],
  [
    'an old storage larger than the file',
    Buffer.concat([head, oldTensor(1e9, 4), keys, longs(10n ** 9n)]),
    /more than the file/,
  ],
  [
    'an old tensor beyond its storage',
    Buffer.concat([head, oldTensor(4, 5), keys, longs(4n), data(16)]),
    /reach beyond/,
  ],
  ['an old big-endian file', Buffer.concat([head.subarray(0, -3), latin1('\x89s.')]), /big-endian/],
  ['the tar format', archive(makeTar('tensors', {}, data(10))), /torch 0\.1\.10 or later/],
]
