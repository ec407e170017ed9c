import type { CommandRule } from '../../../kit/command.js'
import { align } from './align.js'
import { finetune } from './finetune.js'
import { predict } from './predict.js'
import { prepare } from './prepare.js'
import { preprocess } from './preprocess.js'
import { pretrain } from './pretrain.js'
import { preview } from './preview.js'
import { respond } from './respond.js'
import { score } from './score.js'
import { units } from './units.js'
import { voiceboxPreprocess } from './voicebox-preprocess.js'
import { voiceboxTrain } from './voicebox-train.js'

/** `voxtorch usdm VERB` */
export const usdmCommands: readonly CommandRule[] = [
  finetune,
  units,
  preprocess,
  preview,
  predict,
  score,
  respond,
  align,
  prepare,
  pretrain,
  voiceboxPreprocess,
  voiceboxTrain,
]
