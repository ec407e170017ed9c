throw new Error('the file is gone')
