import { ofFormat } from './image.js'

export const target = ofFormat('bmp', 'BM', [
  '\x28\0\0\0',
  '\x0c\0\0\0',
  '\x7c\0\0\0',
  '\x03\0\0\0',
  '\0\x01',
  '\0\x02',
])
