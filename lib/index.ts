/// <reference lib="esnext.disposable" preserve="true" />
export * from './root.js'
