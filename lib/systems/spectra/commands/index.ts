import type { CommandRule } from '../../../kit/command.js'
import { data } from './data.js'
import { finetune } from './finetune.js'
import { predict } from './predict.js'
import { pretrain } from './pretrain.js'
import { track } from './track.js'

/** `voxtorch spectra VERB` */
export const spectraCommands: readonly CommandRule[] = [finetune, predict, data, pretrain, track]
