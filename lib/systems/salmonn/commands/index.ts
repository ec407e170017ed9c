import type { CommandRule } from '../../../kit/command.js'
import { chat } from './chat.js'
import { convert } from './convert.js'
import { score } from './score.js'
import { train } from './train.js'
import { trajectory } from './trajectory.js'

/** `voxtorch salmonn VERB` */
export const salmonnCommands: readonly CommandRule[] = [train, chat, score, convert, trajectory]
