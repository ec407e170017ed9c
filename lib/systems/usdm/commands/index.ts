import type { CommandRule } from '../../../kit/command.js'
import { preprocess } from './preprocess.js'
import { preview } from './preview.js'
import { units } from './units.js'
import { voiceboxPreprocess } from './voicebox-preprocess.js'
import { voiceboxTrain } from './voicebox-train.js'

/** `voxtorch usdm VERB` */
export const usdmCommands: readonly CommandRule[] = [preprocess, preview, units, voiceboxPreprocess, voiceboxTrain]
