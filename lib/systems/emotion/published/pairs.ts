import { requireOptions, requireWhole } from '../../../base/check.js'
import { Random } from '../../../data/random.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'

/** Two utterances of a dialog: the emotion of the first, and whether the second is its cause. */
export interface EmotionPair {
  dialog: EmotionDialog
  /** Index of the first utterance, and of the second. */
  initial: number
  causal: number
  /** Emotion of the first utterance; undefined if it is unknown. */
  emotion: string | undefined
  cause: 0 | 1
}

/**
 * Return the training pairs of experiments 9 and 10: all true pairs of each dialog, and as many false ones, drawn without
 * replacement from all ordered pairs, including an utterance with itself. If there are fewer false ones, return all of them.
 */
export function publishedPairs(dialogs: readonly EmotionDialog[], options: { seed?: number } = {}): EmotionPair[] {
  requireOptions('publishedPairs', options, ['seed'])
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
    // A pair with two spans appears twice.
    return [...causes.map(({ effect, cause }) => pair(effect, cause, 1)), ...drawn.map(([a, b]) => pair(a, b, 0))]
  })
}
