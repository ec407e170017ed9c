import { readFile, writeFile } from 'node:fs/promises'

/** Numbers for each word of a sentence. */
const PER_WORD = 14

/**
 * Turns a sentence into numbers. A word is a bag of up to 14 of them: the word itself, the pair with the word before, and
 * its pieces of four letters, so that a word that training never saw is not quite unknown. 0 fills up a bag.
 */
export class Vocabulary {
  static readonly perWord = PER_WORD
  readonly #numbers: Map<string, number>

  constructor(tokens: readonly string[]) {
    this.#numbers = new Map(tokens.map((token, i) => [token, i + 1]))
  }

  /** Build a vocabulary of the words that occur at least twice. */
  static of(sentences: readonly string[]): Vocabulary {
    const counts = new Map<string, number>()
    for (const token of sentences.flatMap((text) => bags(text).flat())) counts.set(token, (counts.get(token) ?? 0) + 1)
    return new Vocabulary([...counts.keys()].filter((token) => counts.get(token)! > 1))
  }

  static async load(path: string): Promise<Vocabulary> {
    return new Vocabulary(JSON.parse(await readFile(path, 'utf8')) as string[])
  }

  async save(path: string): Promise<void> {
    await writeFile(path, `${JSON.stringify([...this.#numbers.keys()])}\n`)
  }

  /** With the 0. */
  get size(): number {
    return this.#numbers.size + 1
  }

  /** [words · 14] */
  encode(text: string): Int32Array {
    const words = bags(text)
    const numbers = new Int32Array(words.length * PER_WORD)
    words.forEach((bag, i) => {
      const known = bag.map((token) => this.#numbers.get(token) ?? 0).filter((number) => number > 0)
      numbers.set(known.slice(0, PER_WORD), i * PER_WORD)
    })
    return numbers
  }
}

function bags(text: string): string[][] {
  const words: string[] = text.toLowerCase().match(/[a-z']+|[!?]/g) ?? []
  return words.map((word, i) => {
    const marked = `<${word}>`
    const pieces = Array.from({ length: Math.max(0, marked.length - 3) }, (_, j) => `#${marked.slice(j, j + 4)}`)
    return [word, ...(i > 0 ? [`${words[i - 1]} ${word}`] : []), ...pieces]
  })
}
