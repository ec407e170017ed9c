import type { CommandRule } from '../../../kit/command.js'
import { preprocess } from './preprocess.js'
import { preview } from './preview.js'
import { respond } from './respond.js'
import { units } from './units.js'

/** `voxtorch usdm VERB` */
export const usdmCommands: readonly CommandRule[] = [preprocess, preview, respond, units]
