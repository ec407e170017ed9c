/**
 * Return pairs of small integers in the iteration order of a CPython set. InternVL's published code sorts such a set with a
 * stable sort, so the order of the set decides between grids with equal keys. Implements the tuple hash (xxHash, CPython 3.8
 * and later, 64 bits) and open addressing with linear probes (https://github.com/python/cpython/blob/3.12/Objects/setobject.c).
 */
export function setOrder<T extends readonly [number, number]>(pairs: readonly T[]): T[] {
  let table = new Array<Entry<T> | undefined>(8).fill(undefined)
  let used = 0
  for (const pair of pairs) {
    const entry = { hash: hashOf(pair), pair }
    if (!insert(table, entry)) continue
    used += 1
    if (used * 5 < (table.length - 1) * 3) continue
    let size = 8
    while (size <= used * 4) size *= 2
    const larger = new Array<Entry<T> | undefined>(size).fill(undefined)
    for (const old of table) if (old) insert(larger, old)
    table = larger
  }
  return table.flatMap((entry) => (entry ? [entry.pair] : []))
}

interface Entry<T> {
  hash: bigint
  pair: T
}

/** Linear probes before the next perturbed position. */
const RUN = 9

/** Insert an entry; return false if the pair was present. */
function insert<T extends readonly [number, number]>(table: (Entry<T> | undefined)[], entry: Entry<T>): boolean {
  const mask = table.length - 1
  let place = Number(entry.hash & BigInt(mask))
  for (let perturb = entry.hash; ; ) {
    const last = place + RUN <= mask ? place + RUN : place
    for (let at = place; at <= last; at++) {
      const there = table[at]
      if (!there) {
        table[at] = entry
        return true
      }
      if (there.pair[0] === entry.pair[0] && there.pair[1] === entry.pair[1]) return false
    }
    perturb >>= 5n
    place = Number((BigInt(place) * 5n + 1n + perturb) & BigInt(mask))
  }
}

const WORD = (1n << 64n) - 1n
const [FIRST, SECOND, FIFTH] = [11400714785074694791n, 14029467366897019727n, 2870177450012600261n]

function hashOf(pair: readonly [number, number]): bigint {
  let sum = FIFTH
  for (const number of pair) {
    sum = (sum + BigInt(number) * SECOND) & WORD
    sum = ((sum << 31n) | (sum >> 33n)) & WORD
    sum = (sum * FIRST) & WORD
  }
  sum = (sum + (2n ^ FIFTH ^ 3527539n)) & WORD
  return sum === WORD ? 1546275796n : sum
}
