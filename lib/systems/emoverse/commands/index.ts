import type { CommandRule } from '../../../kit/command.js'
import { causes } from './causes.js'
import { data } from './data.js'
import { infer } from './infer.js'
import { score } from './score.js'
import { sft } from './sft.js'

/** `voxtorch emoverse VERB` */
export const emoverseCommands: readonly CommandRule[] = [sft, data, infer, causes, score]
