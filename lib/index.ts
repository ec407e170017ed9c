/// <reference lib="esnext.disposable" preserve="true" />
export * from './data/index.js'
export * from './models/index.js'
export * from './native/errors.js'
export * from './nn/index.js'
export * from './tensor/index.js'
export * from './train/index.js'
