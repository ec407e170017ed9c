// For `node --require`: the packages that only a clone of the repository has are not there.
const { Module } = require('node:module')

const resolve = Module._resolveFilename
Module._resolveFilename = function (name, ...rest) {
  if (!/^(sentiment|espeak-ng)(\/|$)/.test(name)) return resolve.call(this, name, ...rest)
  throw Object.assign(new Error(`Cannot find module '${name}'`), { code: 'MODULE_NOT_FOUND' })
}
