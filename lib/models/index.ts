export type { NetworkConfig } from './config.js'
export { NativeModule } from './native-module.js'
export type { LoadNetworkOptions } from './pretrained.js'
export {
  Roberta,
  type RobertaConfig,
  RobertaForMaskedLM,
  type RobertaInputs,
  type RobertaMaskedLMOutput,
  type RobertaOutput,
} from './roberta.js'
