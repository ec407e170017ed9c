import { MemorySource, Place } from '../../../lib/files/byte-source.js'
import { SourceFeed } from '../../../lib/files/pickle/feed.js'
import { parsePickle } from '../../../lib/files/pickle/read-pickle.js'
import { Resolving } from '../../../lib/files/pickle/resolvers.js'
import { scope } from '../../../lib/index.js'
import type { Random } from '../random.js'
import { type FuzzTarget, fixtureFiles } from './target.js'

const latin1 = (text: string) => Buffer.from(text, 'latin1')

/** Instructions that make or take something, for sentences that a mutation of bytes rarely forms. */
const pieces = [
  ...[
    'N',
    '\x88',
    '\x89',
    'K\x05',
    'M\xff\xff',
    'J\xff\xff\xff\xff',
    '\x8a\x02\xff\xff',
    'G\x3f\xf0\0\0\0\0\0\0',
    'I7\n',
    'F1.5\n',
  ],
  ...[
    'L-5L\n',
    "S'a\\x41'\n",
    'Va\\u0041\n',
    'X\x01\0\0\0a',
    '\x8c\x01b',
    'U\x01\xe9',
    'C\x04abcd',
    'B\x08\0\0\0abcdefgh',
  ],
  ...[')', ']', '}', '\x8f', '(', '(', 't', 'l', 'd', '\x85', '\x86', '\x87', 'a', 'e', 's', 'u', '\x90', '\x91'],
  ...['0', '1', '2', 'q\0', 'q\x01', 'h\0', 'h\x01', '\x94', 'R', '\x81', 'b', 'o', '\x92', 'p0\n', 'g0\n'],
  ...[
    'cnumpy\ndtype\n',
    'cnumpy\nndarray\n',
    'cnumpy.core.multiarray\n_reconstruct\n',
    'cnumpy.core.multiarray\nscalar\n',
  ],
  ...[
    'cnumpy.core.numeric\n_frombuffer\n',
    'c_codecs\nencode\n',
    'ccollections\nOrderedDict\n',
    'ccollections\ndefaultdict\n',
  ],
  ...['c__builtin__\nset\n', 'c__builtin__\nbytearray\n', 'c__builtin__\ncomplex\n', 'ccopy_reg\n_reconstructor\n'],
  ...[
    'ctorch._utils\n_rebuild_tensor_v2\n',
    'ctorch.storage\n_load_from_bytes\n',
    'ctorch\nSize\n',
    'cargparse\nNamespace\n',
  ],
  ...['cown\nMade\n', 'cown\nItems\n', 'cown\nmade\n', 'iown\nMade\n', '\x82\x01', 'Q', '}Vx\nNs', '}Vx\nNsb'],
  ...[
    "(S'f4'\nI0\nI1\ntR",
    "(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb",
    "(I3\nS'>'\nNNNI-1\nI-1\nI0\ntb",
    "(I0\ntS'b'\ntR",
    'Vlatin1\n',
  ],
  ...['(I1\n(I2\nt', 'I00\n', "S'abcdefgh'\ntb", '\x95\x05\0\0\0\0\0\0\0', '\x80\x04'],
].map(latin1)

class Made {
  readonly args: unknown[]
  constructor(...args: unknown[]) {
    this.args = args
  }
}
class MadeItems extends Array<unknown> {}
const made = (...args: unknown[]) => args.length
const classes: Record<string, typeof Made | typeof made> = { Made, made, Items: () => new MadeItems() as never }

/** Code of the caller's, which takes whatever comes. */
const resolvers = {
  nameResolver: { resolve: (module: string, name: string) => (module === 'own' ? classes[name] : undefined) },
  persistentResolver: { resolve: () => new Made() },
  extensionResolver: { resolve: () => Made },
}

export const target: FuzzTarget = {
  name: 'pickle',
  seeds() {
    const names = ['pickle-protocols', 'pickle-instructions', 'pickle-python2', 'pickle-random']
    return names
      .flatMap(fixtureFiles)
      .filter(({ length }) => length < 3000)
      .filter((_, i) => i % 5 === 0)
  },
  async run(bytes) {
    await scope(async () => {
      const feed = new SourceFeed(new MemorySource(bytes, new Place('fuzz.pkl')))
      await parsePickle(feed, { encoding: 'latin1', records: ['Record'], lazy: false })
    })
    await scope(async () => {
      const feed = new SourceFeed(new MemorySource(bytes, new Place('fuzz.pkl')))
      const resolving = new Resolving(resolvers)
      await parsePickle(feed, { encoding: 'latin1', resolving, lazy: false })
      await resolving.run()
    })
  },
  generate(random: Random) {
    const parts = Array.from({ length: 1 + random.below(30) }, () => random.pick(pieces))
    return Buffer.concat([...parts, latin1('.')])
  },
  words: pieces.map((piece) => piece.toString('latin1')),
}
