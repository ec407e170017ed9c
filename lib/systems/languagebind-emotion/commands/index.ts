import type { CommandRule } from '../../../kit/command.js'
import { ecfScore } from './ecf-score.js'
import { label } from './label.js'
import { train } from './train.js'

/** `voxtorch emotion VERB` */
export const emotionCommands: readonly CommandRule[] = [train, label, ecfScore]
