import { faulty } from './target.js'

export const target = faulty('memory')
