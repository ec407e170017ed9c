export { LoraConfig } from './config.js'
export { type AdapterOptions, getPeftModel, type LoadAdapterOptions, type MergeOptions, PeftModel } from './model.js'
export { dequantizeLayer } from './packed-layer.js'
export { type PackingOptions, type QuantizeOptions, quantize } from './quantize.js'
