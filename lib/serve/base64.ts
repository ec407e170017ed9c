import { badRequest } from './api-error.js'

/** Decode base64. @throws ApiError 400 for invalid base64, and for an empty string */
export function fromBase64(data: string, param: string): Buffer {
  const bytes = Buffer.from(data, 'base64')
  // Node skips invalid characters, and then returns fewer bytes than the length of the text implies.
  const letters = data.length - (data.endsWith('==') ? 2 : data.endsWith('=') ? 1 : 0)
  if (bytes.length > 0 && bytes.length === Math.floor((letters * 3) / 4) && letters % 4 !== 1) return bytes
  throw badRequest('expected valid base64 data.', param, 'invalid_base64')
}
