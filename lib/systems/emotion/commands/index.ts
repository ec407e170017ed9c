import type { CommandRule } from '../../../kit/command.js'
import { ecfScore } from './ecf-score.js'
import { label } from './label.js'
import { train } from './train.js'

/** Commands of `voxtorch emotion`. */
export const emotionCommands: readonly CommandRule[] = [train, label, ecfScore]
