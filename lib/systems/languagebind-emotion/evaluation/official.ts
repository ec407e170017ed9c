import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { ecfConversations } from '../../../kit/emotion/ecf.js'
import { type EcfPairScores, scoreEcf } from '../../../kit/emotion/ecf-score.js'

/** What the official scorer of subtask 2 says of the causes of dialogs, in the same order as the true ones. */
export function officialScores(
  truth: readonly EmotionDialog[],
  found: readonly EmotionDialog[],
): Promise<EcfPairScores> {
  return scoreEcf({ subtask: 2, gold: conversations(truth), predictions: conversations(found) })
}

/** It wants numbers for names. */
const conversations = (dialogs: readonly EmotionDialog[]) =>
  ecfConversations(
    dialogs.map((dialog, i) => ({ ...dialog, id: String(i + 1) })),
    { subtask: 2 },
  )
