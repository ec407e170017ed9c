import { expect } from 'vitest'

/** Milliseconds for which nothing else of the thread may have to wait. */
const STALL = 200
/** What ten times as much input may cost at most, in times of the smaller: linear work takes 10, quadratic work 100. */
const GROWTH = 40
const [SMALL, LARGE] = [100_000, 1_000_000]

/** The longest time for which other work of this thread had to wait, in milliseconds. */
export async function longestStall(work: () => unknown): Promise<number> {
  let [most, last, isOver] = [0, performance.now(), false]
  const look = () => {
    const now = performance.now()
    most = Math.max(most, now - last)
    last = now
  }
  const tick = () => {
    look()
    if (!isOver) timer = setTimeout(tick, 0)
  }
  let timer = setTimeout(tick, 0)
  try {
    await work()
  } finally {
    isOver = true
    clearTimeout(timer)
  }
  look()
  return most
}

/**
 * Expects that 1 MB of input holds nobody up for long. A machine may be slow, or busy with others' work: so a stall of more than
 * 200 ms counts only if it is more than 40 times that of a tenth of the input, in the best of three rounds.
 * @param make what is to be done with an input of a size, prepared before the clock runs
 */
export async function expectNoStall(name: string, make: (size: number) => () => unknown): Promise<void> {
  let [small, large] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]
  for (let round = 0; round < 3; round++) {
    large = Math.min(large, await longestStall(make(LARGE)))
    if (large <= STALL) return
    small = Math.min(small, await longestStall(make(SMALL)))
    if (large <= GROWTH * small) return
  }
  expect.fail(`${name}: 1 MB stalls the event loop for ${large.toFixed(0)} ms, 100 kB for ${small.toFixed(0)} ms`)
}

/**
 * Expects that work on 1 MB lets others have a turn again and again: a stall of more than 200 ms counts, however slow the machine
 * is, if it is more than half of all the work, in the best of three rounds. Unlike {@link expectNoStall} it finds linear work
 * that is done at once.
 */
export async function expectTurns(name: string, work: () => Promise<unknown>): Promise<void> {
  let best = { stall: Number.POSITIVE_INFINITY, all: 1 }
  for (let round = 0; round < 3; round++) {
    const begun = performance.now()
    const stall = await longestStall(work)
    const all = performance.now() - begun
    if (stall <= STALL || stall <= all / 2) return
    if (stall / all < best.stall / best.all) best = { stall, all }
  }
  expect.fail(`${name}: 1 MB stalls the event loop for ${best.stall.toFixed(0)} of ${best.all.toFixed(0)} ms`)
}

/** Texts on which patterns and searches go wrong: long runs, beginnings that never end, and ends that never begin. */
export const FILLERS: Record<string, (size: number) => string> = {
  letters: (size) => 'a'.repeat(size),
  blanks: (size) => `Anna${' '.repeat(size)}x`,
  lines: (size) => '\n'.repeat(size),
  turns: (size) => 'Anna: x\n'.repeat(size / 8),
  digits: (size) => '1'.repeat(size),
  brackets: (size) => '[<({'.repeat(size / 4),
  tags: (size) => '<img><audio>'.repeat(size / 12),
  markers: (size) => '<|im_start|>'.repeat(size / 12),
  dots: (size) => `a${'.,;!'.repeat(size / 4)}x`,
  quotes: (size) => `${'"\\'.repeat(size / 2)}x`,
  characters: (size) => '漢'.repeat(size / 3),
}
