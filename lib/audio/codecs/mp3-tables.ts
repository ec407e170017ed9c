// Tables of ISO/IEC 11172-3 and 13818-3.

import type { Bits } from './bits.js'

const QUICK = 8

/** Huffman code of pairs of numbers up to 15, both in one byte, written as its tree: '-' and two branches, or a pair. */
export class PairCode {
  /** Two branches per node: the complement of a pair, or a node index. */
  readonly #tree: number[] = []
  /** Lookup by the next eight bits: a pair and, above it, the length of the codeword; 0 for longer codewords. */
  readonly #quick = new Uint16Array(1 << QUICK)

  constructor(text: string) {
    let at = 0
    const grow = (word: number, length: number): number => {
      if (text[at] !== '-') {
        const pair = Number.parseInt(text.slice(at, at + 2), 16)
        at += 2
        const rest = QUICK - length
        if (rest >= 0) this.#quick.fill((length << 8) | pair, word << rest, (word + 1) << rest)
        return ~pair
      }
      at += 1
      const node = this.#tree.length
      this.#tree.push(0, 0)
      this.#tree[node] = grow(word << 1, length + 1)
      this.#tree[node + 1] = grow((word << 1) | 1, length + 1)
      return node
    }
    grow(0, 0)
  }

  read(bits: Bits): number {
    const quick = this.#quick[bits.peek(QUICK)]!
    if (quick !== 0) {
      bits.pass(quick >> 8)
      return quick & 255
    }
    let node = 0
    do node = this.#tree[node + bits.read(1)]!
    while (node >= 0)
    return ~node
  }
}

const trees: Record<number, string> = {
  1: '---11011000',
  2: '------220212-212011-011000',
  3: '------220212-21201011-0100',
  5: '--------33233231--1303-3022--1221-022011-011000',
  6: '-------330323-3230-1331--220212--212001-11-1000',
  7: [
    '----------5545-5453-3544--255215--51-0534-50-4333---244214-4140----0423-3203-1331--302212--21-022011',
    '-011000',
  ].join(''),
  8: [
    '-----------55544553--354425--520515--51-3443--503324---421441--0440-2332----1331-033022-0220-122111-',
    '-011000',
  ].join(''),
  9: [
    '---------554535-53-5405--4425-5215--5134-43-5004---2442-3340-1441---233213-31-0330---220212-2120--11',
    '01-1000',
  ].join(''),
  10: [
    '-----------7767-7657--756647--7456-6537---7346--555463-2772----640770-62-4535--06-534417---71-3626--',
    '-255215-51-3443--1661-60-0550-----2442-3304-1441--4023-3203--1331-3022---1221-022011-011000',
  ].join(''),
  11: [
    '----------7767-7675--6647-74-5755---566537-7346----4554-355327-72-6407--71-1770--3663-60-4425-----52',
    '051562--260616--61-5134--50-4333-2442-----1441-0440-2332-1331---03302221--12-022011--011000',
  ].join(''),
  12: [
    '----------776776-5775--6647-7465--5637--735527---7246-6417--71-0770-3663----4554-44-0605-2662--61-16',
    '60--3553-2552----1551-3443---500424-4214--3341-2332-----40033013-3122-1221----02200011-0110',
  ].join(''),
  13: [
    '-------------------fefcfdedff-efdf--eecf-debf---fbce-dc-afe9-ecdd----facdbe-eb9f--f9ea-bddb----8ff8-',
    'cc-ae9e--8e-7f7ef7--da-adbc--cbf66f----e85f-9dd9--f5e7-acbb---4ff4--cae6f3-3f-8dd8----2ff2--6e9c0f--',
    '-c95eab--7dd74e----c8d63e-b9-9baa-1ff1----f0-bae5--e48c-6de3--e2-2e0e-1ee1----e05d-d57c--c74d-8bb8--',
    '-d49a-a96c-c63d------d37b2d-d21d--b7-5cc5--997ac3----a7974bd1--0dd0-8aa8----4cc4-6bb6-3c2c--c25b--b5',
    '891c-----c1-980c-c0-b46a---a6793b-b3-885a---2b-a569-a4-7887--94-7776b2---1bb1--0bb0-964a---3aa3-5995',
    '-2aa2-----1aa1--0a68a0---864993--3958-8567---2992--577538--83-6647--7456-6573---1991--0990-4884---72',
    '-466428-8218------372717-71-5507---7036-6345--5426-6235--81-0880--1661-0660-----534425-5205-1551---3',
    '443-5024--423314----41-0440--233213--3103-3022--1221-0220--11011000',
  ].join(''),
  15: [
    '-------------ffef-fedf-ee-fdcf---fcde-edbf-fb-ceec---ddaf-fabe--ebcd-dc9f----f9ea-bddb--8ff8-cc9e---',
    'e97f-f7ad--dabc-6f-ae0f----cbf6--8ee8-5f9d--f57e-e7ac---cabb--d98d4f--f43f-f3d8-----e62f-f2-6ef0--1f',
    'f1-9cc9---5eab-bae5--7dd7-4ee4----8cc8-3e6d--d6e3-9bb9---2eaa-e21e--e1-0ee0-5dd5------7cc7-4d8b-d4-b',
    '89a---a96c-c63d-d3d2----2d0d1d-7bb7--d1-5cd0-c58a----a84c-c46b--b6-990c-3cc3---7aa7-a6-c00b-c2-2c5b-',
    '-----b51c-8998--c14b-b46a---3b79b3--9788-2b5a---b2-a51b-b1-b069---964a-a478--873aa3----5995-2aa2--1a',
    'a1--0aa068---8649-9439--93-7709-5885------2967-7692-91-1990---4884-5775--3883-6647---2882-1881---740',
    '8-8056--6537-7346----2772-6417--5571--077036---6345-5426--6216--066035-----61-5344-2552--1551--05503',
    '4---4324-4233-41-1404---2332--400313--313022----1221-022011--011000',
  ].join(''),
  16: [
    '-----------effe-dffd--cffc-bffb--af-fa9f--f9f88f---7ff7-6ff6ff----5ff54f-f4f3--f0-3f------ce-ecddde-',
    'e9-ead9-ee-edeb--becd--dcdbae---cc-adda--7eacca---c97d5ebdf2----2f0f1f-f1-----9e-bccb--8ee8-9de7---b',
    'b8d-d86e-e69c----abba-e5d7-4e-e48c--c83e-6d-d69b-----b9aae1-d4-b8a9--7b-b7d0e3---0ee0-5dd5--7cc7-4d8',
    'b-------9a6c-c63d--5cc50d---8aa8-994c--b67a3c----5b891c-c0-9879-e2-2e1e----d32d-d2d1--3b-97881d---c4',
    '6b-c3a7-2c-c2b5-----c10c-4bb4--6aa6b3---5aa52b-b21b---b1-0bb0--6996-4aa4---7887a3--3a592a--------956',
    '8a1--867794---495767a2--1a-0aa0--3993-5885---2992--760919--91-9048--8475-3883-----662882--477418--81',
    '80--085637---73-6546-2772---64550717----71-7036--6345-5426--6216-61-0660---53-3544-2552-51-1505-----',
    '-3443-5024--423314--41-0440-2332--1331--033022--1221-0220--11011000',
  ].join(''),
  24: [
    '--------effe-dffd--cffc-bffb--fa-af9f-f9f8----8f7ff7-6ff6--5ff5-4ff4----3ff3-2ff2--f1-1ff0---0f--eed',
    'e-edce---ecdd-beeb--cddc-aeea----bddb-cc9e--e9ad-dabc---cb8e-e89d--d97e-e7acff---------cabb-8dd8---0',
    'ee00de6---6e9cc9-5eba---e5-ab7d-d7e4--8cc8--4e2e3e----6dd6-e39b--b9aa-e21e---e15d-d57c--c74d-8bb8---',
    '--d49a-a96c--c63d-d32d---d21d-7bb7--d15c-c58a----a899-4cc4--6bb6--d00c3c---c37a-a72c--c25b-b51c-----',
    '-8998-c14b---c00b3b--b00a1a--b4-6aa6--7997--a00990---b388--2b5ab2---a51b-b169-96a4-----4a7887-3aa3--',
    '5995-2aa2---a168-8677--4994-3993------5885-2967--7692-1991---4884-5775--3883-6628----8218-4774--81-0',
    '880-5665---17-077073--372772----4664-5571--3663-4554---2662-1661---066035-5344-------2552-15-0550-51',
    '-3443--2442-3314---41-0440-2332-1331----03302212-21-0220--1101-1000',
  ].join(''),
  32: '------0b0f-0d0e--070509--0603-0a0c--0201-040800',
}
const codes = new Map(Object.entries(trees).map(([number, text]) => [Number(number), new PairCode(text)]))

/** Code of table 32: quadruples of values up to 1 at the end of the spectrum. Table 33 is uncoded bits. */
export const quadCode = codes.get(32)!

// Extra bits after a value of 15.
const more = [1, 2, 3, 4, 6, 8, 10, 13, 4, 5, 6, 7, 8, 9, 11, 13]

/** Return the code of a table number; undefined for 0 (all values are zero), and for 4 and 14, which do not exist. */
export function pairCode(table: number): { code: PairCode; more: number } | undefined {
  const code = codes.get(table < 16 ? table : table < 24 ? 16 : 24)
  return code === undefined ? undefined : { code, more: table < 16 ? 0 : more[table - 16]! }
}

/** Half of the synthesis window, in 65536ths; the other half is its mirror image. */
const halfWindow = [
  0, -1, -1, -1, -1, -1, -1, -2, -2, -2, -2, -3, -3, -4, -4, -5, -5, -6, -7, -7, -8, -9, -10, -11, -13, -14, -16, -17,
  -19, -21, -24, -26, -29, -31, -35, -38, -41, -45, -49, -53, -58, -63, -68, -73, -79, -85, -91, -97, -104, -111, -117,
  -125, -132, -139, -147, -154, -161, -169, -176, -183, -190, -196, -202, -208, 213, 218, 222, 225, 227, 228, 228, 227,
  224, 221, 215, 208, 200, 189, 177, 163, 146, 127, 106, 83, 57, 29, -2, -36, -72, -111, -153, -197, -244, -294, -347,
  -401, -459, -519, -581, -645, -711, -779, -848, -919, -991, -1064, -1137, -1210, -1283, -1356, -1428, -1498, -1567,
  -1634, -1698, -1759, -1817, -1870, -1919, -1962, -2001, -2032, -2057, -2075, -2085, -2087, -2080, -2063, 2037, 2000,
  1952, 1893, 1822, 1739, 1644, 1535, 1414, 1280, 1131, 970, 794, 605, 402, 185, -45, -288, -545, -814, -1095, -1388,
  -1692, -2006, -2330, -2663, -3004, -3351, -3705, -4063, -4425, -4788, -5153, -5517, -5879, -6237, -6589, -6935, -7271,
  -7597, -7910, -8209, -8491, -8755, -8998, -9219, -9416, -9585, -9727, -9838, -9916, -9959, -9966, -9935, -9863, -9750,
  -9592, -9389, -9139, -8840, -8492, -8092, -7640, -7134, 6574, 5959, 5288, 4561, 3776, 2935, 2037, 1082, 70, -998,
  -2122, -3300, -4533, -5818, -7154, -8540, -9975, -11455, -12980, -14548, -16155, -17799, -19478, -21189, -22929,
  -24694, -26482, -28289, -30112, -31947, -33791, -35640, -37489, -39336, -41176, -43006, -44821, -46617, -48390,
  -50137, -51853, -53534, -55178, -56778, -58333, -59838, -61289, -62684, -64019, -65290, -66494, -67629, -68692,
  -69679, -70590, -71420, -72169, -72835, -73415, -73908, -74313, -74630, -74856, -74992, 75038,
]

/** The 512 weights of the synthesis window. */
export const synthesisWindow = Float32Array.from({ length: 512 }, (_, i) => {
  const value = halfWindow[i <= 256 ? i : 512 - i]! / 65536
  return i > 256 && i % 64 !== 0 ? -value : value
})

/** Start of each scale factor band, by sample rate: for long blocks, and for each window of short blocks. */
export interface Bands {
  long: readonly number[]
  short: readonly number[]
}

const cumulative = (...widths: number[]): number[] => {
  const sums = [0]
  for (const width of widths) sums.push(sums.at(-1)! + width)
  return sums
}
const low = {
  long: cumulative(6, 6, 6, 6, 6, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 38, 46, 52, 60, 68, 58, 54),
  short: cumulative(4, 4, 4, 6, 8, 10, 12, 14, 18, 24, 30, 40, 18),
}
export const bands: Record<number, Bands> = {
  44100: {
    long: cumulative(4, 4, 4, 4, 4, 4, 6, 6, 8, 8, 10, 12, 16, 20, 24, 28, 34, 42, 50, 54, 76, 158),
    short: cumulative(4, 4, 4, 4, 6, 8, 10, 12, 14, 18, 22, 30, 56),
  },
  48000: {
    long: cumulative(4, 4, 4, 4, 4, 4, 6, 6, 6, 8, 10, 12, 16, 18, 22, 28, 34, 40, 46, 54, 54, 192),
    short: cumulative(4, 4, 4, 4, 6, 6, 10, 12, 14, 16, 20, 26, 66),
  },
  32000: {
    long: cumulative(4, 4, 4, 4, 4, 4, 6, 6, 8, 10, 12, 16, 20, 24, 30, 38, 46, 56, 68, 84, 102, 26),
    short: cumulative(4, 4, 4, 4, 6, 8, 12, 16, 20, 26, 34, 42, 12),
  },
  22050: { long: low.long, short: cumulative(4, 4, 4, 6, 6, 8, 10, 14, 18, 26, 32, 42, 18) },
  24000: {
    long: cumulative(6, 6, 6, 6, 6, 6, 8, 10, 12, 14, 16, 18, 22, 26, 32, 38, 46, 54, 62, 70, 76, 36),
    short: cumulative(4, 4, 4, 6, 8, 10, 12, 14, 18, 24, 32, 44, 12),
  },
  16000: low,
  11025: low,
  12000: low,
  8000: {
    long: cumulative(12, 12, 12, 12, 12, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 76, 90, 2, 2, 2, 2, 2),
    short: cumulative(8, 8, 8, 12, 16, 20, 24, 28, 36, 2, 2, 2, 26),
  },
}

/** Increments of the upper bands' scale factors with preemphasis. */
export const preemphasis = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 2, 0]

/** Bit widths of the scale factors of lower and upper bands, by their code in MPEG-1. */
export const scaleBits = [
  [0, 0, 0, 0, 3, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4],
  [0, 1, 2, 3, 0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 2, 3],
] as const

/** Number of scale factors with the first, second, third and fourth bit width, in MPEG-2: [table][long, short, mixed]. */
export const scaleCounts = [
  [
    [6, 5, 5, 5],
    [9, 9, 9, 9],
    [6, 9, 9, 9],
  ],
  [
    [6, 5, 7, 3],
    [9, 9, 12, 6],
    [6, 9, 12, 6],
  ],
  [
    [11, 10, 0, 0],
    [18, 18, 0, 0],
    [15, 18, 0, 0],
  ],
  [
    [7, 7, 7, 0],
    [12, 12, 12, 0],
    [6, 15, 12, 0],
  ],
  [
    [6, 6, 6, 3],
    [12, 9, 9, 6],
    [6, 12, 9, 6],
  ],
  [
    [8, 8, 5, 0],
    [15, 12, 9, 0],
    [6, 18, 9, 0],
  ],
] as const
