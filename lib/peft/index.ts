export type { LoraConfig } from './config.js'
export { type AdapterOptions, getPeftModel, type LoadAdapterOptions, PeftModel } from './model.js'
