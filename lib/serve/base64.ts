import { badRequest } from './api-error.js'

/** @param what for the message @throws ApiError 400 for what is no base64, and for nothing */
export function fromBase64(data: string, what: string, param: string): Buffer {
  const bytes = Buffer.from(data, 'base64')
  // Node passes over what is not base64, and then there is less than its length promises.
  const letters = data.length - (data.endsWith('==') ? 2 : data.endsWith('=') ? 1 : 0)
  if (bytes.length > 0 && bytes.length === Math.floor((letters * 3) / 4) && letters % 4 !== 1) return bytes
  throw badRequest(`The ${what} data is not valid base64.`, param, 'invalid_base64')
}
