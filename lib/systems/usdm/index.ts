export {
  USDM_INSTRUCTION,
  type UsdmExample,
  type UsdmPromptInput,
  type UsdmTurn,
  type UsdmUtterance,
  usdmExample,
  usdmLabels,
  usdmPrompt,
} from './data/prompt.js'
export {
  USDM_MAX_LENGTH,
  USDM_UNITS,
  type UsdmIds,
  type UsdmPiece,
  UsdmTokenizer,
  type UsdmTokenizerOptions,
} from './data/text.js'
