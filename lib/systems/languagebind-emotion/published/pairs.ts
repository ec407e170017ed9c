import { requireWhole } from '../../../base/check.js'
import { Random } from '../../../data/random.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'

/** Two utterances of a dialog: what is felt in the first, and whether the second is its cause. */
export interface EmotionPair {
  dialog: EmotionDialog
  /** Their places. */
  initial: number
  causal: number
  /** Of the first, for pairs that are none too; undefined where it has none. */
  emotion: string | undefined
  cause: 0 | 1
}

/**
 * The pairs that experiments 9 and 10 train on: of each dialog all true ones, and as many different ones that are not true,
 * drawn from all ordered pairs, those of an utterance with itself included. Where there are not so many, all of them.
 */
export function publishedPairs(dialogs: readonly EmotionDialog[], options: { seed?: number } = {}): EmotionPair[] {
  const { seed = 42 } = options
  requireWhole('publishedPairs', 'seed', seed)
  const random = new Random(seed)
  return dialogs.flatMap((dialog) => {
    const { utterances, causes = [] } = dialog
    const truth = new Set(causes.map(({ effect, cause }) => `${effect},${cause}`))
    const places = [...utterances.keys()]
    const others = places.flatMap((a) => places.flatMap((b) => (truth.has(`${a},${b}`) ? [] : [[a, b] as const])))
    const drawn = random.shuffle(others).slice(0, truth.size)
    const pair = (initial: number, causal: number, cause: 0 | 1): EmotionPair => ({
      ...{ dialog, initial, causal, emotion: utterances[initial]?.emotion, cause },
    })
    // A pair with two spans is one that is true twice.
    return [...causes.map(({ effect, cause }) => pair(effect, cause, 1)), ...drawn.map(([a, b]) => pair(a, b, 0))]
  })
}
