import { ofFormat } from './image.js'

export const target = ofFormat('png', '\x89PNG', ['IHDR', 'IDAT', 'PLTE', 'tRNS', 'iCCP', 'acTL', 'fdAT', 'IEND'])
