import { Random } from '../data/random.js'
import type { BatchSource } from '../train/trainer/data-source.js'
import type { Prompt } from './prompts.js'

/** Prompts of a batch, and its place among those of a step. */
export class PromptBatch {
  constructor(
    readonly prompts: readonly Prompt[],
    /** Prompts of all batches of the step, which are sampled together. */
    readonly window: readonly Prompt[],
    /** Index of the window since the start of the training. */
    readonly key: number,
    /** Index of the batch's first prompt in its window. */
    readonly first: number,
    /** Whether the window has had a step before. */
    readonly isRepeated: boolean,
  ) {}
}

/**
 * Batches of prompts in a seeded order. `accumulation` batches of every process make a window, which comes `numIterations` times. If the
 * last window is not full, prompts from the beginning of the pass complete it.
 */
export class PromptBatches implements BatchSource<PromptBatch> {
  #epoch = 0
  #first = 0

  constructor(
    readonly prompts: readonly Prompt[],
    readonly options: { seed: number; batchSize: number; accumulation: number; numIterations: number },
    readonly shard = { rank: 0, worldSize: 1 },
  ) {}

  /** Number of prompts of a window. */
  get windowSize(): number {
    const { batchSize, accumulation } = this.options
    return batchSize * accumulation * this.shard.worldSize
  }

  get #windows(): number {
    return Math.ceil(this.prompts.length / this.windowSize)
  }

  get length(): number {
    const { accumulation, numIterations } = this.options
    return this.#windows * accumulation * numIterations
  }

  setEpoch(epoch: number, firstBatch = 0): void {
    this.#epoch = epoch
    this.#first = firstBatch
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<PromptBatch, void, void> {
    const { seed, batchSize, accumulation, numIterations } = this.options
    const { prompts, windowSize: size } = this
    const { rank, worldSize } = this.shard
    const order = shuffled(prompts.length, new Random(seed, this.#epoch))
    for (let at = this.#first; at < this.length; at++) {
      const step = Math.floor(at / accumulation)
      const [part, number] = [at % accumulation, Math.floor(step / numIterations)]
      const window = Array.from(
        { length: size },
        (_, i) => prompts[order[(number * size + i) % prompts.length] as number] as Prompt,
      )
      const first = (part * worldSize + rank) * batchSize
      const own = window.slice(first, first + batchSize)
      yield new PromptBatch(own, window, this.#epoch * this.#windows + number, first, step % numIterations > 0)
    }
  }
}

/** Return the numbers below `count` in a random order. */
function shuffled(count: number, random: Random): number[] {
  const order = Array.from({ length: count }, (_, i) => i)
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random.float() * (i + 1))
    const moved = order[i] as number
    order[i] = order[j] as number
    order[j] = moved
  }
  return order
}
