import { crc32 } from 'node:zlib'
import type { ColumnMetaData } from 'hyparquet'
import type { ByteSource } from '../byte-source.js'
import { type Packages, unpacked } from './packages.js'
import { checkedSize, type Page, readDataPage, readDictionary } from './page.js'
import type { ParquetLeaf } from './schema.js'
import { thriftEnd } from './thrift.js'
import { type Convert, conversionOf, isText } from './values.js'

/** Size of the first read of a page's header, and the largest header. */
const HEADER = 1 << 12
const LONGEST_HEADER = 1 << 20
const MOST_HEADER_VALUES = 10_000
/** Maximum number of values of one row in a column. */
const LONGEST_ROW = 2 ** 22

/** A column of a row group: reads its pages one at a time, and returns its entries in sequence. */
export class Cursor {
  /** Number of rows that are read but not taken, and whether there are no further ones. */
  ready = 0
  ended = false
  /** Fault of a value in the row that is taken. */
  fault: string | undefined
  #offset: number
  readonly #end: number
  #left: number
  readonly #convert: Convert
  readonly #shared: boolean
  #dictionary: ArrayLike<unknown> | undefined
  #texts: (string | undefined)[] = []
  // The current entries.
  #definitions: Uint8Array | undefined
  #repetitions: Uint8Array | undefined
  #values: ArrayLike<unknown> = []
  #indexed = false
  #entries = 0
  #at = 0
  #value = 0

  constructor(
    readonly leaf: ParquetLeaf,
    private readonly packages: Packages,
    private readonly source: ByteSource,
    private readonly chunk: ColumnMetaData,
    range: { start: number; end: number; values: number },
  ) {
    this.#offset = range.start
    this.#end = range.end
    this.#left = range.values
    this.ended = range.values === 0
    const convert = conversionOf(leaf.node.element)
    if (convert === undefined) throw new Error('its type is not supported')
    this.#convert = convert
    this.#shared = isText(convert)
  }

  /** Read pages until a row is complete, or up to the end. With `skip`, a page that holds only rows before it is passed over. */
  async load(skip = 0): Promise<number> {
    const { maxRepetition } = this.leaf
    const pages: Page[] = []
    let entries = 0
    let passed = 0
    do {
      const page = await this.#next(maxRepetition === 0 ? skip - passed : 0)
      if (page === undefined) break
      if (typeof page === 'number') {
        passed += page
        continue
      }
      pages.push(page)
      entries += page.entries
      if (maxRepetition > 0 && entries > LONGEST_ROW + page.entries) {
        throw new Error(`expected at most ${LONGEST_ROW} values in a row, got more`)
      }
      if (maxRepetition === 0 || page.repetitions?.includes(0)) break
    } while (this.#left > 0)
    this.ended = this.#left === 0
    if (pages.length > 0) this.#join(pages)
    this.#countRows()
    return passed
  }

  /** Definition level of the next entry. */
  definition(): number {
    if (this.#at >= this.#entries) throw new Error('it has fewer values than its sibling columns')
    return this.#definitions?.[this.#at] ?? this.leaf.maxDefinition
  }

  /** Repetition level of the next entry; 0 at the end. */
  repetition(): number {
    return this.#at < this.#entries ? (this.#repetitions?.[this.#at] ?? 0) : 0
  }

  /** Pass over an entry that has no value. */
  skipNull(): void {
    if (this.definition() === this.leaf.maxDefinition)
      throw new Error('it has a value where its sibling columns have none')
    this.#at++
  }

  /** Return the next value; null if there is none. `least` is the lowest definition level that the columns above allow. */
  take(least: number): unknown {
    const level = this.definition()
    this.#at++
    if (level < this.leaf.maxDefinition) {
      if (level < least) throw new Error('it has no value where its sibling columns have one')
      return null
    }
    const raw = this.#values[this.#value++]
    try {
      return this.#indexed ? this.#looked(raw as number) : this.#convert(raw)
    } catch (error) {
      this.fault ??= (error as Error).message
      return null
    }
  }

  /** Pass over all entries of a row. */
  skipRow(): void {
    const max = this.leaf.maxDefinition
    do {
      if (this.definition() === max) this.#value++
      this.#at++
    } while (this.repetition() > 0)
  }

  #looked(index: number): unknown {
    const dictionary = this.#dictionary
    if (dictionary === undefined || index >= dictionary.length) {
      throw new Error(`expected an index into a dictionary of ${dictionary?.length ?? 0} values, got ${index}`)
    }
    if (!this.#shared) return this.#convert(dictionary[index])
    return (this.#texts[index] ??= this.#convert(dictionary[index]) as string)
  }

  /** Join the entries that are left with those of further pages. */
  #join(pages: readonly Page[]): void {
    const [first] = pages
    if (this.#at === this.#entries && pages.length === 1 && first !== undefined) {
      this.#definitions = first.definitions
      this.#repetitions = first.repetitions
      this.#values = first.values
      this.#indexed = first.indexed
      this.#entries = first.entries
    } else {
      const rest = this.#rest()
      const all = rest.entries > 0 ? [rest, ...pages] : pages
      this.#entries = all.reduce((sum, page) => sum + page.entries, 0)
      const levels = (name: 'definitions' | 'repetitions', highest: number) => {
        const joined = new Uint8Array(this.#entries)
        let start = 0
        for (const page of all) {
          joined.set(page[name] ?? new Uint8Array(page.entries).fill(highest), start)
          start += page.entries
        }
        return joined
      }
      this.#definitions = levels('definitions', this.leaf.maxDefinition)
      this.#repetitions = levels('repetitions', 0)
      // Pages with and without a dictionary alternate when a dictionary has become too large.
      const same = all.every((page) => page.indexed === all[0]?.indexed)
      this.#indexed = same && all[0]?.indexed === true
      const values: unknown[] = []
      for (const page of all) {
        for (let i = 0; i < page.values.length; i++) {
          values.push(page.indexed && !same ? this.#stored(page.values[i] as number) : page.values[i])
        }
      }
      this.#values = values
    }
    this.#at = 0
    this.#value = 0
  }

  #stored(index: number): unknown {
    const dictionary = this.#dictionary
    if (dictionary !== undefined && index < dictionary.length) return dictionary[index]
    throw new Error(`expected an index into a dictionary of ${dictionary?.length ?? 0} values, got ${index}`)
  }

  #rest(): Page {
    const values: unknown[] = []
    for (let i = this.#value; i < this.#values.length; i++) values.push(this.#values[i])
    return {
      entries: this.#entries - this.#at,
      definitions: this.#definitions?.subarray(this.#at),
      repetitions: this.#repetitions?.subarray(this.#at),
      values,
      indexed: this.#indexed,
    }
  }

  #countRows(): void {
    if (this.leaf.maxRepetition === 0) {
      this.ready = this.#entries - this.#at
      return
    }
    let rows = 0
    for (let i = this.#at; i < this.#entries; i++) if (this.#repetitions?.[i] === 0) rows++
    if (this.#at < this.#entries && this.#repetitions?.[this.#at] !== 0) throw new Error('a row begins in its middle')
    // The last row may go on in the next page.
    this.ready = this.ended ? rows : Math.max(0, rows - 1)
  }

  /** Read the next data page; or return the number of rows of one that lies before `skip`. */
  async #next(skip: number): Promise<Page | number | undefined> {
    for (;;) {
      if (this.#left === 0) return undefined
      const { header, bytes } = await this.#header()
      const { type } = header
      const unpack = (packed: Uint8Array, size: number) => unpacked(this.chunk.codec, packed, size)
      if (type === 'DICTIONARY_PAGE') {
        if (this.#dictionary !== undefined) throw new Error('a second dictionary')
        const size = checkedSize(header)
        const dictionary = await unpack(await bytes(), size)
        this.#dictionary = readDictionary(this.packages, this.leaf, header, dictionary)
        continue
      }
      if (type === 'INDEX_PAGE') continue
      const count = (header.data_page_header ?? header.data_page_header_v2)?.num_values
      if (
        skip > 0 &&
        Number.isInteger(count) &&
        (count as number) > 0 &&
        (count as number) <= Math.min(skip, this.#left)
      ) {
        this.#left -= count as number
        return count as number
      }
      checkedSize(header)
      const page = await readDataPage(this.packages, this.leaf, header, await bytes(), unpack, this.#left)
      this.#left -= page.entries
      // Empty pages take no memory, however many there are.
      if (page.entries > 0) return page
    }
  }

  async #header() {
    const left = this.#end - this.#offset
    for (let size = Math.min(HEADER, left); ; size = Math.min(size * 16, left, LONGEST_HEADER)) {
      const head = await this.source.bytes(this.#offset, size)
      const end = thriftEnd(head, 0, MOST_HEADER_VALUES)
      if (end === 'short' && size < Math.min(left, LONGEST_HEADER)) continue
      if (typeof end === 'string') throw new Error(left === 0 ? 'it ends too early' : 'the head of a page is broken')
      const header = this.packages.parquetHeader({ view: new DataView(head.buffer, head.byteOffset, end), offset: 0 })
      const { compressed_page_size: packed } = header
      if (!Number.isInteger(packed) || packed < 0 || packed > left - end) {
        throw new Error(`a page of ${String(packed)} bytes, but ${left - end} are left`)
      }
      const start = this.#offset + end
      this.#offset = start + packed
      const bytes = async (): Promise<Uint8Array> => {
        const page =
          end + packed <= head.length ? head.subarray(end, end + packed) : await this.source.bytes(start, packed)
        if (header.crc !== undefined && crc32(page) !== header.crc >>> 0)
          throw new Error('the checksum of a page differs')
        return page
      }
      return { header, bytes }
    }
  }
}
