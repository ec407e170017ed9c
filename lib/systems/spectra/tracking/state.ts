import { requireOptions, shown } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type DstConfig, knownDstConfig } from './config.js'
import { type SlotValues, slotValues } from './dialog.js'
import { type DstFeatures, type DstTokenizer, dstSpecialIds } from './features.js'

/** Prediction of one turn: the argmax of each slot. */
export interface DstPrediction {
  classIds: readonly number[]
  startPositions: readonly number[]
  endPositions: readonly number[]
  referIds: readonly number[]
}

export interface DstDecodeOptions {
  config: DstConfig
  tokenizer: DstTokenizer
  /**
   * `'published'` decodes like the original: a reference to no slot takes the value of the last slot, an invalid span gives an empty value,
   * and a missing mentioned value gives 'none'. Default: none of these changes the state.
   */
  compat?: 'published' | undefined
}

const PREDICTION = { classIds: 'list', startPositions: 'list', endPositions: 'list', referIds: 'list' } as const

/** Return the state after a turn, from the state before it and the prediction. Slots without a value are omitted. */
export function nextDstState(
  state: SlotValues,
  prediction: DstPrediction,
  turn: Pick<DstFeatures, 'inputIds' | 'userLength' | 'informs'>,
  options: DstDecodeOptions,
): SlotValues {
  const where = 'nextDstState'
  requireForm(where, 'state', state, 'object')
  requireForm(where, 'prediction', prediction, PREDICTION)
  requireForm(where, 'turn', turn, { inputIds: 'list', informs: 'object' })
  requireForm(where, 'options', options, { tokenizer: { decode: 'function' } })
  requireOptions(where, options, ['config', 'tokenizer', 'compat'])
  const { compat } = options
  const config = knownDstConfig(options.config)
  const published = compat === 'published'
  const next = slotValues(Object.entries(state))
  const kinds = prediction.classIds.map((id) => config.classTypes[id])
  if (kinds.length !== config.slots.length || kinds.some((kind) => kind === undefined))
    throw new ConfigError(
      `nextDstState: prediction.classIds: expected an index of class_types for each of ${config.slots.length} slots, got ${shown(prediction.classIds)}`,
      { classIds: prediction.classIds },
    )

  config.slots.forEach((slot, i) => {
    const kind = kinds[i]
    if (kind === 'dontcare' || kind === 'true' || kind === 'false') next[slot] = kind
    else if (kind === 'copy_value') {
      const value = spanText(turn, prediction.startPositions[i]!, prediction.endPositions[i]!, options)
      if (value !== '' || published) next[slot] = value
    } else if (kind === 'inform') {
      const value = turn.informs[slot] ?? (published ? 'none' : undefined)
      if (value !== undefined) next[slot] = value
    }
  })
  // References come last: they copy the values of this turn.
  config.slots.forEach((slot, i) => {
    if (kinds[i] !== 'refer') return
    const index = prediction.referIds[i]! - 1
    const other = index >= 0 || published ? config.slots.at(index) : undefined
    const value = other === undefined ? undefined : next[other]
    if (value !== undefined) next[slot] = value
    else if (published) delete next[slot]
  })
  for (const slot of config.slots) if (next[slot] === 'none') delete next[slot]
  return next
}

/** Return the words from one token to another, separated by single spaces; '' for a span outside of the turn's text. */
function spanText(
  { inputIds }: Pick<DstFeatures, 'inputIds'>,
  start: number,
  end: number,
  { tokenizer, compat }: DstDecodeOptions,
): string {
  const ids = inputIds.slice(start, end + 1)
  const special = dstSpecialIds(tokenizer)
  const isSpecial = (id: number) => id === special.bos || id === special.eos || id === special.pad
  if (!compat && (end >= inputIds.length || ids.some(isSpecial))) return ''
  return tokenizer.decode(ids, { cleanUpSpaces: false }).trim().replace(/\s+/g, ' ')
}
