export type { LoraConfig } from './config.js'
export { type AdapterOptions, getPeftModel, type LoadAdapterOptions, type MergeOptions, PeftModel } from './model.js'
export { dequantizeLayer, type QuantizeOptions, quantize } from './quantize.js'
