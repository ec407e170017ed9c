// What both sides of gguf.ts do: the prompts, and how a text that goes on is timed.
const PROMPT = 32

/** Token ids, other ones for each row. */
export const prompts = (rows, words, length = PROMPT) =>
  Array.from({ length: rows }, (_, row) => Array.from({ length }, (_, i) => (i * 7919 + row * 104729 + 13) % words))

/**
 * @param generate gives for each step the tokens of all rows, for as many steps
 * @returns nanoseconds of the prompt with its first token, and of each token after it
 */
export async function timedGreedy(count, generate) {
  const tokens = []
  const start = process.hrtime.bigint()
  let first
  let last = start
  for await (const step of generate(count)) {
    last = process.hrtime.bigint()
    first ??= last
    tokens.push([...step])
  }
  if (tokens.length !== count) throw new Error(`${tokens.length} tokens instead of ${count}`)
  return { prefill: Number(first - start), token: Number(last - first) / (count - 1), tokens }
}
