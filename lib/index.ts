/// <reference lib="esnext.disposable" preserve="true" />
export * from './deprecated.js'
export * from './root.js'
